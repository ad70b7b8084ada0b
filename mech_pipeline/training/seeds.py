"""Named seeds for PyTorch; numbers and NumPy streams are in `spec/seeds.py`."""

import torch

from mech_pipeline.spec.seeds import check_fixed, derive_seed


def torch_generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU stream of its own; the caller's global generator is untouched."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose))


def fixed_torch_generator(purpose: str, number: int = 0) -> torch.Generator:
    """Stream `number` of a purpose in `spec.seeds.FIXED`, on the CPU; the same for every run."""
    check_fixed(purpose)
    return torch.Generator().manual_seed(number)
