"""Fixtures of all tests, their marks by folder, and their order: slowest first."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

gc.disable()  # until all is imported: a third of that time is looking for garbage among what stays
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before PyTorch loads, and for every process that a test starts
pytest.register_assert_rewrite("tests.support")  # its helpers assert

from tests.support.annotations import check_shapes_only_where_named  # noqa: E402, before anything else of the project

check_shapes_only_where_named()

import torch  # noqa: E402

from mech_pipeline.mechanisms.probe import Probe, Sequences  # noqa: E402
from mech_pipeline.training.loop import Trainer  # noqa: E402
from tests.support.mechanisms import mechanisms_of  # noqa: E402, F401, fixture of several tests
from tests.support.models import CONTEXT, VOCABULARY, trainer_of  # noqa: E402
from tests.support.once import kept_for_all_tests  # noqa: E402, F401, a fixture of all tests
from tests.support.order import SLOWEST  # noqa: E402
from tests.support.stores import folder, local_store, s3_root, server, store  # noqa: E402, F401, fixtures of all tests

torch.set_num_threads(1)
_TESTS = Path(__file__).parent
_PLACE = {name: place for place, name in enumerate(SLOWEST)}


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is in whole/ as `process`, and puts slow files first."""
    for item in items:
        name = _file(item)
        if name.startswith("whole/"):
            item.add_marker(pytest.mark.process)
    items.sort(key=lambda item: _PLACE.get(_file(item), len(_PLACE)))


def pytest_collection_finish() -> None:
    """Garbage is looked for again, but not among the modules."""
    gc.freeze()
    gc.enable()


def _file(item: pytest.Item) -> str:
    """A test's file, seen from this folder; doctests lie outside and have their own name."""
    return str(item.path.relative_to(_TESTS)) if item.path.is_relative_to(_TESTS) else item.path.name


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
