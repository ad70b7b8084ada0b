"""A whole experiment small enough to run in seconds: real code paths, made-up text."""

import copy
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline.cells import Cell, stored_versions
from mech_pipeline.pipeline.run_row import write_run_row
from mech_pipeline.pipeline.tokens import tokens
from mech_pipeline.pipeline.training import training
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store
from tests.support.places import ROOT

TINY: dict[str, Any] = {
    "experiment": "tiny",
    "question": "Does everything work?",
    "corpus": {"files": "text/*.txt"},
    "tokenizer": {"vocabulary": 280},
    "data": {"context": 16, "examples": 64, "tile_tokens": [4, 8], "held_out": 0.2},
    "model": {"layers": 2, "heads": 2, "d_model": 16},
    "optimizer": {"warmup_steps": 5},
    "training": {"steps": 24, "batch": 8},
    "checkpoints": {"every": 6, "dense_every": 3, "dense": [[0, 6]]},
    "probe": {"tiled_examples": 4, "random_examples": 4},
    "mechanisms": ["induction_copy_advantage", "previous_token_attention"],
    "detectors": ["previous_token", "prefix_matching"],
    "held_out_loss": False,
    "gradients": ["induction_copy_advantage"],
    "formation": [
        {"mechanism": "induction_copy_advantage", "threshold": 9.0, "sustain": 2},
        {"detector": "prefix_matching", "threshold": 0.9, "sustain": 2},
    ],
    "ledger": {"mechanisms": ["induction_copy_advantage"]},
    "influence": {"mechanisms": ["induction_copy_advantage"]},
    "seeds": [0, 1],
    "arms": {"baseline": {}, "control": {"data": {"plain": 1.0, "tiled": 0.0}, "seeds": [0]}},
}

MINIMAL = {
    "experiment": "x",
    "corpus": {"python_stdlib": True},
    "mechanisms": ["induction_copy_advantage"],
    "formation": [{"mechanism": "induction_copy_advantage", "threshold": 1.5}],
}
"""The fewest fields that an experiment can have."""


def write_text(folder: Path) -> None:
    """A dozen small files of source-like text."""
    (folder / "text").mkdir(parents=True, exist_ok=True)
    for index in range(12):
        lines = [
            f"def function_{index}_{line}(value):\n    return value * {index * line} + {line}\n" for line in range(12)
        ]
        (folder / "text" / f"file_{index:02d}.txt").write_text("\n".join(lines))


def write_experiment(path: Path, **change: Any) -> Path:
    """The tiny experiment as a file, with some top-level fields replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(TINY | change))
    return path


def write_project(home: Path, **change: Any) -> Path:
    """A project folder as `mech` and Dagster want it: settings, text and the tiny experiment, which names its text in full."""
    shutil.copy(ROOT / "dagster.yaml", home)
    write_text(home)
    text = {"corpus": {"files": str(home / "text" / "*.txt")}}
    return write_experiment(home / "experiments" / "tiny.yaml", **text | change)


def spec_of(index: int = 0, **change: Any) -> RunSpec:
    """One run of the tiny experiment, with some top-level fields replaced."""
    return resolve(parse_experiment(copy.deepcopy(TINY) | change)).runs()[index]


def prepare(store: Store, spec: RunSpec) -> None:
    """Tokens and the run's row: what training needs."""
    documents = read_corpus(spec.corpus)
    tokens.prepare_tokens(store, spec, documents)
    write_run_row(store, spec, corpus_sha256(documents), "planned")


def train(store: Store, spec: RunSpec) -> None:
    """Everything up to the last checkpoint."""
    prepare(store, spec)
    training.train(store, spec)


def checkpoint_hashes(store: Store, run: str) -> dict[int, str]:
    """Hash of every kept state."""
    return {cell.step: version.data_version for cell, version in stored_versions(store, "checkpoints", run).items()}


def places(cells: Iterable[Cell]) -> list[tuple[int | None, str]]:
    """(step, item) of some cells."""
    return [(cell.step, cell.label) for cell in cells]
