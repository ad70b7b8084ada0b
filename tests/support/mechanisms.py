"""Mechanisms of a test's own project."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mech_pipeline.mechanisms.chosen import CHOSEN
from mech_pipeline.mechanisms.known import KNOWN
from mech_pipeline.mechanisms.registry import MECHANISMS


@pytest.fixture
def mechanisms_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | None], None]:
    """Called with a folder, it makes that the project's, as in a new process; afterwards all is as before."""
    for one, names in (
        (CHOSEN, ("_folder", "_said")),
        (MECHANISMS, ("_folder", "_found")),
        (KNOWN, ("_folder", "_read")),
    ):
        for name in names:
            monkeypatch.setattr(one, name, getattr(one, name))

    def use(folder: Path | None) -> None:
        MECHANISMS._found = KNOWN._read = None
        CHOSEN.use(folder)

    return use
