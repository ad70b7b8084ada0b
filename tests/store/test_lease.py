"""Locks on S3: one holder at a time; whoever dies, stops renewing or releases makes room."""

import json
import time

import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.store.files import lease as leases
from mech_pipeline.store.store import Store

FOLDER = "locks/a"


@pytest.fixture
def files(s3_root):
    return Store(s3_root).files


def held(files):
    return json.loads(files.read(f"{FOLDER}/{files.names(FOLDER)[-1]}"))


def change(files, **fields):
    files.write(f"{FOLDER}/{files.names(FOLDER)[-1]}", json.dumps(held(files) | fields).encode())


def test_a_lease_is_held_by_one_and_then_by_the_next(files):
    for generation in (1, 2, 3):
        with leases.lease(files, FOLDER, "do it"):
            with pytest.raises(MechError, match="cannot do it as well: process .* is writing it"):
                with leases.lease(files, FOLDER, "do it as well"):
                    pass
            assert files.names(FOLDER) == [f"{generation:08d}"]
        assert held(files)["released"]


def test_a_lease_is_renewed_while_it_is_held(files, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_SECONDS", 0.05)
    with leases.lease(files, FOLDER, "do it"):
        first = held(files)["renewed"]
        time.sleep(0.5)
        assert held(files)["renewed"] > first


@pytest.mark.parametrize(
    ("fields", "free"),
    [
        ({"host": "elsewhere"}, False),
        ({"host": "elsewhere", "renewed": time.time() - 61}, True),
        ({"renewed": time.time() - 61}, True),
        ({"process": 2**22 + 1}, True),
        ({"host": "elsewhere", "process": 2**22 + 1}, False),
    ],
)
def test_who_may_follow(files, fields, free):
    """A dead process is known on its own machine only; elsewhere its lease must run out."""
    with leases.lease(files, FOLDER, "do it"):
        pass
    change(files, released=False, renewed=time.time())
    change(files, **fields)
    if free:
        with leases.lease(files, FOLDER, "follow"):
            pass
    else:
        with pytest.raises(MechError, match="cannot follow"), leases.lease(files, FOLDER, "follow"):
            pass


def test_of_two_that_come_at_once_the_server_chooses_one(files, monkeypatch):
    """The other came between its look and its write."""
    create = files.create

    def late(name, content):
        assert create(name, content)
        return create(name, content)

    monkeypatch.setattr(files, "create", late)
    with pytest.raises(MechError, match="another process has just begun to write it"):
        with leases.lease(files, FOLDER, "do it"):
            pass
