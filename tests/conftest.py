"""Fixtures of all tests."""

from collections.abc import Callable

import pytest
import torch

from mech_pipeline.mechanisms.probe import Probe, Sequences
from mech_pipeline.training.loop import Trainer
from tests.support.mechanisms import mechanisms_of  # noqa: F401, fixture of several tests
from tests.support.models import CONTEXT, VOCABULARY, trainer_of
from tests.support.stores import local_store, s3_root, server, store  # noqa: F401, fixtures of all tests

torch.set_num_threads(1)


@pytest.fixture
def make_trainer() -> Callable[..., Trainer]:
    """`trainer_of`."""
    return trainer_of


@pytest.fixture
def tiny_probe() -> Probe:
    """Repeating sequences that fit the tiny models."""
    generator = torch.Generator().manual_seed(7)
    half = torch.stack([torch.randperm(VOCABULARY, generator=generator)[: CONTEXT // 2] for _ in range(5)])
    sequences = Sequences(torch.cat([half, half], dim=1), torch.full((5,), CONTEXT // 2))
    return Probe(tiled=sequences, random=sequences)
