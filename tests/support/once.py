"""Stores that tests share: each is filled once a session, by the test that asks first, and copied by the others."""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store
from tests.support import tiny

_KEPT = "MECH_TEST_KEPT"
Fill = Callable[[Store, RunSpec], None]


@pytest.fixture(scope="session", autouse=True)
def kept_for_all_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where filled stores are kept: one folder a session, which processes of pytest-xdist share."""
    mine = tmp_path_factory.getbasetemp()
    folder = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "kept"
    folder.mkdir(exist_ok=True)
    os.environ[_KEPT] = str(folder)


def kept_folder() -> Path:
    """Where this session keeps what its tests share."""
    return Path(os.environ[_KEPT])


def filled_once(store: Store, spec: RunSpec, fill: Fill) -> OpenRun:
    """The run in a store that `fill` has filled: by itself for whoever asks first, as a copy for all others.

    Args:
        store: in a folder or on S3; one in a folder that holds rows already is filled by itself.
        fill: a function of a module, so that its name stands for what it does.
    """
    if Path(store.root, "tables").exists():
        fill(store, spec)
        return OpenRun(store, spec)
    text = corpus_sha256(read_corpus(spec.corpus))
    asked = f"{fill.__module__}.{fill.__qualname__} {text} {spec.model_dump_json()}"
    kept = kept_folder() / hashlib.sha256(asked.encode()).hexdigest()[:24]
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            making = kept.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)
            fill(Store(making), spec)
            making.rename(kept)
    if store.root.startswith("s3://"):
        for path in filter(Path.is_file, kept.rglob("*")):
            store.files.write(path.relative_to(kept).as_posix(), path.read_bytes())
    else:
        shutil.copytree(kept, store.root, dirs_exist_ok=True)
    return OpenRun(store, spec)


def trained(store: Store, spec: RunSpec) -> OpenRun:
    """A run with its tokens and all its checkpoints."""
    return filled_once(store, spec, tiny.train)
