"""Random numbers: every stream is named, and the streams with fixed seeds draw what they always drew."""

import ast

import numpy as np
import pytest
import torch

from mech_pipeline.spec.seeds import FIXED, derive_seed, fixed_numpy_generator
from mech_pipeline.training.seeds import fixed_torch_generator
from tests.support.places import ROOT

MAKERS = {"default_rng", "Generator", "PCG64", "RandomState", "seed", "manual_seed"}
ALLOWED = {
    "spec/seeds.py",
    "training/seeds.py",
    "training/model.py",  # PyTorch's initialisation reads the global generator, which gets a derived seed
    "attribution/estimators/ekfac_worker.py",  # a process of its own, in which only kronfluence draws
}


def test_fixed_streams_are_the_plain_integers():
    """What stored circuits and corrupted sequences were drawn with."""
    for number in (0, 3):
        drawn = fixed_numpy_generator("circuit orders", number).permutation(50)
        assert (drawn == np.random.default_rng(number).permutation(50)).all()
    key = torch.rand(9, generator=fixed_torch_generator("shuffled copies"))
    assert torch.equal(key, torch.rand(9, generator=torch.Generator().manual_seed(0)))


def test_a_fixed_stream_must_be_listed():
    assert "circuit halves" in FIXED
    with pytest.raises(AssertionError, match="'order' is no purpose with a fixed seed"):
        fixed_numpy_generator("order")


def test_purposes_have_seeds_of_their_own():
    assert len({derive_seed(seed, purpose) for seed in (0, 1) for purpose in ("init", "order", "probe")}) == 6


def test_generators_are_made_in_one_place():
    package = ROOT / "mech_pipeline"
    makers = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            made = node.func if isinstance(node, ast.Call) else None
            if isinstance(made, ast.Attribute) and made.attr in MAKERS:
                makers.add(path.relative_to(package).as_posix())
    assert makers == ALLOWED
