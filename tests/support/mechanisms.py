"""Mechanisms of a test's own project."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mech_pipeline.mechanisms.registry import MECHANISMS


@pytest.fixture
def mechanisms_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path | None], None]:
    """Called with a folder, it makes that the project's, as in a new process; afterwards all is as before."""
    for name in ("_folder", "_chosen", "_found"):
        monkeypatch.setattr(MECHANISMS, name, getattr(MECHANISMS, name))

    def use(folder: Path | None) -> None:
        MECHANISMS._found = None
        MECHANISMS.use(folder)

    return use
