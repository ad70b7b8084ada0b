"""A whole experiment small enough to run in seconds: real code paths, made-up text."""

from pathlib import Path
from typing import Any

import yaml

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
    "gradients": ["induction_copy_advantage"],
    "formation": [
        {"mechanism": "induction_copy_advantage", "threshold": 9.0, "sustain": 2},
        {"detector": "prefix_matching", "threshold": 0.9, "sustain": 2},
    ],
    "ledger": {"mechanisms": ["induction_copy_advantage"]},
    "influence": {"mechanisms": ["induction_copy_advantage"], "metasmoothness_steps": 6},
    "seeds": [0, 1],
    "arms": {"baseline": {}, "control": {"data": {"plain": 1.0, "tiled": 0.0}, "seeds": [0]}},
}


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
