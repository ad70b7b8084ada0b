"""Stores to test on: in a folder, and on a real S3 server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mech_pipeline.store.store import Store
from tests.support.s3_server import S3Server, s3_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all tests."""
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def s3_root(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place in a bucket of its own; the environment leads to the server."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return f"{server.new_bucket()}/some/where"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.process)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store: the same tests run on a folder and on S3."""
    return Store(tmp_path / "store" if request.param == "local" else request.getfixturevalue("s3_root"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with the tiny experiment's text; it is the current folder."""
    from tests.support.tiny import write_text  # loads PyTorch, which the tests of the store do without

    write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    """An empty store in a folder."""
    return Store(tmp_path / "store")
