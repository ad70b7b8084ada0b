"""Named seeds for PyTorch; numbers and NumPy streams are in `spec/seeds.py`."""

import torch

from mech_pipeline.spec.seeds import derive_seed


def torch_generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU stream of its own; the caller's global generator is untouched."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose))
