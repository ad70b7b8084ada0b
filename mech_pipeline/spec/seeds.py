"""Named seeds: one number per purpose, so that changing one stream never shifts another.

Every stream that a result depends on is made here. Streams that belong to a run derive from its seed and their purpose.
A stream that is the same for every run is drawn "once and for all": its seed is a plain integer, listed in `FIXED`
under its purpose, because the draws themselves are part of the definition of what is measured with them.
"""

import hashlib

import numpy as np


def derive_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose ("init", "order", "probe", ...) of one run seed."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def numpy_generator(seed: int, purpose: str) -> np.random.Generator:
    """A NumPy stream of its own; PCG64 is stable across platforms and NumPy versions."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, purpose)))


FIXED = (
    *("circuit orders", "circuit halves", "shuffled copies", "batch dependence", "trial of layers"),
    *("resamples of a cluster", "first guess of skills", "clusters at random", "starts of k-means"),
    "steering directions",
)
"""Purposes whose seed is the number itself and not derived, each with streams 0, 1, 2, … of its own:
orders of all edges that a circuit is compared with, random halves of a circuit, and weights and a direction at which it is
tried which layers have a known per-example gradient; tokens of a found cluster that are drawn again, the first guess of a
factorisation, clusters at random, and starts of k-means that found clusters are held against (NumPy's default generator);
orders of repeated tokens in corrupted sequences, directions that batch dependence is measured along, and those
that steer in place of a trigger's (PyTorch).
"""


def fixed_numpy_generator(purpose: str, number: int = 0) -> np.random.Generator:
    """Stream `number` of a purpose in `FIXED`; the same for every run."""
    check_fixed(purpose)
    return np.random.Generator(np.random.PCG64(number))


def check_fixed(purpose: str) -> None:
    """Refuses a purpose that is not listed."""
    assert purpose in FIXED, f"{purpose!r} is no purpose with a fixed seed; derive one from the run's, or list it"
