"""What looking at a checkpoint costs: `python benchmarks/mechanisms.py [PART …]`, two minutes; see benchmarks/README.md.

Models of the experiments' size on the experiments' own languages, one thread. Detectors that read text need its language, so
the general ones are timed with those of IOI, and those of brackets and sums on runs of their own.
"""

import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
import yaml
from reporting import report
from store_measure import Result, Say

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.mechanisms.registry import DETECTORS
from mech_pipeline.pipeline.analysis import analysis, head_scores
from mech_pipeline.pipeline.analysis.loaded import Loaded
from mech_pipeline.pipeline.analysis.wanted import wanted
from mech_pipeline.pipeline.cells import Cell
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.run_row import write_run_row
from mech_pipeline.pipeline.tokens import tokens
from mech_pipeline.pipeline.training import training
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.store import Store

PARTS = ("checkpoint", "run")
BRACKETS, PYTHON, SUMS = (
    [name for name in DETECTORS if name.startswith(first)] for first in ("bracket_", "python_", "carry_")
)
OTHERS = [name for name in DETECTORS if name not in {*BRACKETS, *PYTHON, *SUMS}]
EXPERIMENTS = {"ioi": OTHERS, "brackets": BRACKETS, "python_brackets": PYTHON, "sums": SUMS}
"""Experiment file → the detectors that can be asked of it."""
LIKE = {
    "sums": {
        "file": "brackets",
        "corpus": {"generated": {"language": "sums"}},
        "data": {"context": 42, "plain": 0.0, "tiled": 0.0, "packed": 1.0, "tile_tokens": [4, 8]},
        "mechanisms": ["carry_logit_difference", "carry_accuracy"],
        "formation": [{"mechanism": "carry_accuracy", "threshold": 0.9}],
    }
}
"""What has no file of its own: another's, and what is otherwise there."""
SECONDS_A_CHECKPOINT, SECONDS_A_RUN = 1.0, 180.0


def trained(folder: Path, name: str, checkpoints: int, documents: int, source: str | None) -> OpenRun:
    """A run of an experiment with as many checkpoints, one every other update, and every detector that fits.

    Args:
        documents: of languages that are made up.
        source: files in place of the standard library's.
    """
    described = _described(name)
    for asked in ("ledger", "influence", "circuits", "arms"):
        described.pop(asked, None)
    if "generated" in described["corpus"]:
        described["corpus"]["generated"]["documents"] = documents
    elif source is not None:
        described["corpus"] = {"files": source}
    described["data"]["examples"] = documents // 4
    described["training"] = {"steps": 2 * (checkpoints - 1), "batch": 16, "threads": 1}
    described["optimizer"] = {"warmup_steps": 1}
    described |= {"checkpoints": {"every": 2}, "detectors": EXPERIMENTS[name], "seeds": [0]}
    spec, store = parse_experiment(described).runs()[0], Store(str(folder / name))
    read = read_corpus(spec.corpus)
    tokens.prepare_tokens(store, spec, read)
    write_run_row(store, spec, corpus_sha256(read), "planned")
    training.train(store, spec)
    return OpenRun(store, spec)


def _described(name: str) -> dict[str, Any]:
    other: dict[str, Any] = dict(LIKE.get(name, {}))
    file = Path(__file__).parents[1] / f"experiments/{other.pop('file', name)}.yaml"
    described: dict[str, Any] = yaml.safe_load(file.read_text())
    return described | other


def measure_checkpoint(folder: Path, repetitions: int, documents: int, source: str | None, say: Say) -> list[Result]:
    """Every detector alone, on the last checkpoint."""
    found, total = [], 0.0
    for name, detectors in EXPERIMENTS.items():
        say(f"checkpoint: trains a short run of {name}")
        run = trained(folder, name, 2, documents, source)
        step = run.planned[-1]
        made_from = wanted(run, "head_scores", [step])
        for detector in detectors:
            seconds = []
            for _ in range(repetitions + 1):
                began = time.perf_counter()
                head_scores.compute(Loaded(run, step), [Cell("head_scores", run.spec.run, step, detector)], made_from)
                seconds.append(time.perf_counter() - began)
            typical = median(seconds[1:])  # the first makes the probe data
            total += typical
            found.append(Result("checkpoint", detector, 1e3 * typical, "ms"))
    whole = Result("checkpoint", f"all {len(found)} detectors", total, "s", SECONDS_A_CHECKPOINT)
    return [whole, *found]


def measure_run(folder: Path, checkpoints: int, documents: int, source: str | None, say: Say) -> list[Result]:
    """All detectors and mechanisms of every checkpoint, written to the store."""
    found, total = [], 0.0
    for name in EXPERIMENTS:
        say(f"run: trains {checkpoints} checkpoints of {name}")
        run = trained(folder, name, checkpoints, documents, source)
        began = time.perf_counter()
        analysis.analyse(run, ["mechanism_values", "head_scores"], run.planned)
        seconds = time.perf_counter() - began
        total += seconds
        found.append(Result("run", f"{len(run.planned)} checkpoints of {name}", seconds, "s"))
    return [Result("run", "all, every detector", total, "s", SECONDS_A_RUN), *found]


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Some of {', '.join(PARTS)}; all if none.")] = None,
    repetitions: Annotated[int, typer.Option(help="Timed calls of each detector; the median counts.")] = 9,
    checkpoints: Annotated[int, typer.Option(help="Checkpoints of the run.")] = 200,
    documents: Annotated[int, typer.Option(help="Sentences or words that the runs are trained on.")] = 4000,
    source: Annotated[str | None, typer.Option(help="Python files; the standard library if none.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the stores lie; a temporary folder if none.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")] = None,
) -> None:
    """Seconds for all detectors on a checkpoint and on a run of 200 checkpoints. Exit code 1 if a target is missed."""
    torch.set_num_threads(1)
    measures = {
        "checkpoint": lambda at, say: measure_checkpoint(at, repetitions, documents, source, say),
        "run": lambda at, say: measure_run(at, checkpoints, documents, source, say),
    }
    report("Mechanisms", PARTS, measures, parts, folder, json_file)


if __name__ == "__main__":
    typer.run(main)
