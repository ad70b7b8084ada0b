"""What training promises, measured: `python benchmarks/training.py [PART …]`, some ten minutes; see benchmarks/README.md.

Every number is a ratio to the plain way of doing the same, timed alternately in the same run; medians count.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from reporting import report
from store_measure import Result, Say
from training_peers import PlainLoop, TransformerLensLoop

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline.cells import stored_versions
from mech_pipeline.pipeline.run_row import write_run_row
from mech_pipeline.pipeline.tokens import tokens as tokens_stage
from mech_pipeline.pipeline.training.stack import train_stack
from mech_pipeline.pipeline.training.training import train
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.spec.training import Optimizer, Training
from mech_pipeline.store.store import Store
from mech_pipeline.training.allocator import keep_freed_memory
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.model import build_model
from mech_pipeline.training.update.optimizer import State

PARTS = ("plain", "transformer_lens", "checkpoints", "kills", "stacked")
VOCABULARY = 512
GPT = Model(layers=4, heads=4, d_model=128, d_mlp=512, normalization="layer_norm")


class OurLoop:
    """Training as the pipeline does it, without a store."""

    def __init__(self, spec: Model, pool: torch.Tensor, batch: int) -> None:
        flat = FlatModel(build_model(spec, VOCABULARY, pool.shape[1], 0))
        # Fused attention as the peers have it; what the pipeline's default, math, costs beside it is in README.md.
        self.trainer = Trainer(flat, Optimizer(), Training(batch=batch, attention="fused"), pool, seed=0)
        self.state = State.initial(flat.vector)

    def updates(self, count: int) -> None:
        for made in self.trainer.updates(self.state, self.state.step + count):
            self.state = made.after


def alternately(loops: list[Any], count: int, repetitions: int) -> list[float]:
    """Median seconds for `count` updates of each loop; the first turn warms up."""
    seconds: list[list[float]] = [[] for _ in loops]
    for turn in range(repetitions + 1):
        for loop, taken in zip(loops, seconds, strict=True):
            began = time.perf_counter()
            loop.updates(count)
            if turn:
                taken.append(time.perf_counter() - began)
    return [median(taken) for taken in seconds]


def measure_peer(
    part: str, peer: Callable[..., Any], spec: Model, context: int, target: float | None, count: int, turns: int
) -> list[Result]:
    """Our time per update relative to a peer's on the same model."""
    batch = 16
    pool = torch.randint(0, VOCABULARY, (2048, context), generator=torch.Generator().manual_seed(0))
    ours, theirs = alternately([OurLoop(spec, pool, batch), peer(spec, pool, VOCABULARY, batch)], count, turns)
    shape = f"{spec.layers} layers, width {spec.d_model}, context {context}, batch {batch}"
    return [
        Result(part, f"time of an update, relative; {shape}", ours / theirs, "×", target, ours / theirs, part),
        Result(part, "our updates", count / ours, "1/s"),
    ]


def spec_of(folder: Path, seed: int, **change: Any) -> RunSpec:
    """A run on the standard library's source; the demo's model unless told otherwise."""
    content: dict[str, Any] = {
        "experiment": "bench",
        "corpus": {"files": str(Path(os.__file__).parent / "a*.py")},
        "data": {"examples": 4096},
        "mechanisms": ["induction_copy_advantage"],
        "formation": [{"mechanism": "induction_copy_advantage", "threshold": 1.5}],
        "seeds": list(range(seed + 1)),
    }
    return parse_experiment(content | change).runs()[seed]


def prepared(store: Store, spec: RunSpec, tokens: Path) -> RunSpec:
    """Tokens and the run's row, so that only training is timed.

    Args:
        tokens: where the tokens of this corpus and shape are kept; they are made by whoever asks first, and copied.
    """
    documents = read_corpus(spec.corpus)
    if not tokens.exists():
        tokens_stage.prepare_tokens(Store(tokens), spec, documents)
    if not Path(store.root, "tables").exists():
        shutil.copytree(tokens, store.root, dirs_exist_ok=True)
    tokens_stage.prepare_tokens(store, spec, documents)
    write_run_row(store, spec, corpus_sha256(documents), "planned")
    return spec


def measure_checkpoints(at: Path, steps: int, turns: int, device: str = "cpu") -> list[Result]:
    """What a checkpoint every ten updates costs, against none but the first and the last."""
    seconds: dict[int, list[float]] = {10: [], steps: []}
    for turn in range(turns + 1):
        for every, taken in seconds.items():
            store = Store(at / f"every{every}-{turn}")
            training = {"steps": steps, "device": device}
            spec = prepared(store, spec_of(at, 0, training=training, checkpoints={"every": every}), at / "tokens")
            began = time.perf_counter()
            train(store, spec)
            if turn:
                taken.append(time.perf_counter() - began)
    dense, bare = (median(taken) for taken in seconds.values())
    cost = 100 * (dense / bare - 1)
    return [Result("checkpoints", "a checkpoint every 10 updates costs", cost, "%", 5.0, dense / bare, "none kept")]


_KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from training import spec_of
from mech_pipeline.pipeline.training.training import train
from mech_pipeline.store.store import Store
folder, steps = Path(sys.argv[2]), int(sys.argv[3])
spec = spec_of(folder, 0, training={"steps": steps}, checkpoints={"every": 10})
train(Store(folder / "killed"), spec, lambda saved: print(saved.step, flush=True))
"""


def measure_kills(at: Path, kills: int, steps: int, say: Say) -> list[Result]:
    """Trainers killed at random moments; then every state against an uninterrupted run's."""
    generator = torch.Generator().manual_seed(0)
    spec = spec_of(at, 0, training={"steps": steps}, checkpoints={"every": 10})
    prepared(Store(at / "killed"), spec, at / "tokens")
    lost = died = 0
    acknowledged: set[int] = set()
    for number in range(kills):
        command = [sys.executable, "-c", _KILLED, str(Path(__file__).parent), str(at), str(steps)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        first = process.stdout.readline()
        acknowledged |= {int(first)} if first else set()
        time.sleep(3 * float(torch.rand(1, generator=generator)))
        process.send_signal(signal.SIGKILL)
        acknowledged |= {int(line) for line in process.stdout if line.endswith("\n")}
        process.wait()
        died += process.returncode == -signal.SIGKILL
        lost += len(acknowledged - set(hashes(at / "killed", spec)))
        say(f"kills: {number + 1}/{kills}, {len(acknowledged)} checkpoints acknowledged")
    train(Store(at / "killed"), spec)
    prepared(Store(at / "whole"), spec, at / "tokens")
    train(Store(at / "whole"), spec)
    found, expected = hashes(at / "killed", spec), hashes(at / "whole", spec)
    wrong = sum(found.get(step) != version for step, version in expected.items())
    return [
        Result("kills", f"of {len(expected)} states differ from the uninterrupted run's", wrong, "states", 0),
        Result("kills", "acknowledged checkpoints lost", lost, "states", 0),
        Result("kills", "trainers killed in the middle", died, "kills"),
    ]


def hashes(root: Path, spec: RunSpec) -> dict[int, str]:
    """Hash of every kept state."""
    found = stored_versions(Store(root), "checkpoints", spec.run)
    return {cell.step: version.data_version for cell, version in found.items()}


SHAPES = {
    "demo: width 64, context 64, batch 32": {},
    "small: width 32, context 48, batch 16": {
        "model": {"d_model": 32},
        "data": {"context": 48, "examples": 4096, "tile_tokens": [8, 16]},
        "batch": 16,
    },
    "tiny: width 16, context 32, batch 8": {
        "model": {"d_model": 16, "heads": 2},
        "data": {"context": 32, "examples": 4096, "tile_tokens": [8, 16]},
        "batch": 8,
    },
}


def measure_stacked(at: Path, runs: int, steps: int, turns: int, say: Say) -> list[Result]:
    """Seeds trained in one stack, against the same runs one after another."""
    results = []
    for name, shape in SHAPES.items():
        change = {key: value for key, value in shape.items() if key != "batch"}
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(turns + 1):
            for stacked, taken in seconds.items():
                store = Store(at / f"{name[:5]}{stacked}{turn}")
                training = {"steps": steps, "batch": shape.get("batch", 32), "stacked": stacked}
                plan = {"training": training, "checkpoints": {"every": steps}} | change
                specs = [prepared(store, spec_of(at, seed, **plan), at / f"tokens, {name[:5]}") for seed in range(runs)]
                began = time.perf_counter()
                if stacked:
                    train_stack(store, specs, lambda spec: lambda saved: None, lambda line: None)
                else:
                    for spec in specs:
                        train(store, spec)
                if turn:
                    taken.append(time.perf_counter() - began)
            say(f"stacked: {name}, turn {turn + 1} of {turns + 1}")
        alone, together = median(seconds[False]), median(seconds[True])
        gain = alone / together
        results.append(
            Result("stacked", f"time of {runs} runs, {name}", together / alone, "×", 1 / 1.3, gain, "× the throughput")
        )
    return results


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"any of {', '.join(PARTS)}; all by default")] = None,
    updates: Annotated[int, typer.Option(help="updates a turn, beside peers")] = 10,
    turns: Annotated[int, typer.Option(help="timed turns of each; the median counts")] = 5,
    steps: Annotated[int, typer.Option(help="updates of each run that is kept in a store")] = 300,
    kills: Annotated[int, typer.Option(help="trainers to kill")] = 20,
    kill_steps: Annotated[int, typer.Option(help="updates of the run that is killed")] = 1500,
    runs: Annotated[int, typer.Option(help="seeds in a stack")] = 8,
    folder: Annotated[Path | None, typer.Option(help="where to work")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the results here")] = None,
) -> None:
    """Measures training on this machine's CPU, one thread a run."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as every worker does; the peers in this process have it too
    measures: dict[str, Callable[[Path, Say], list[Result]]] = {
        "plain": lambda at, say: measure_peer("plain", PlainLoop, GPT, 128, 1.0, updates, turns),
        "transformer_lens": lambda at, say: [
            *measure_peer("transformer_lens", TransformerLensLoop, Model(), 256, 1 / 1.5, updates, turns),
            *measure_peer("transformer_lens", TransformerLensLoop, GPT, 256, None, updates, turns),
        ],
        "checkpoints": lambda at, say: measure_checkpoints(at, steps, turns),
        "kills": lambda at, say: measure_kills(at, kills, kill_steps, say),
        "stacked": lambda at, say: measure_stacked(at, runs, steps, turns, say),
    }
    report("Training", PARTS, measures, parts, folder, json_file)


if __name__ == "__main__":
    typer.run(main)
