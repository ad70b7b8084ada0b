"""Named seeds: one number per purpose, so that changing one stream never shifts another."""

import hashlib

import numpy as np


def derive_seed(seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose ("init", "order", "probe", ...) of one run seed."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def numpy_generator(seed: int, purpose: str) -> np.random.Generator:
    """A NumPy stream of its own; PCG64 is stable across platforms and NumPy versions."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, purpose)))
