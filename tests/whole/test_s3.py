"""What is particular to S3: faults in a sentence, SQL that cannot write, many processes, kill -9, one word changed."""

import http.server
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.store.care.maintain import maintain_store
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.files.open import open_files
from mech_pipeline.store.reading.connection import connect
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support.command_line import FINISHED, finished_project, mech
from tests.support.rows import write_run
from tests.support.tiny import write_project

PATIENCE = 30.0  # seconds in which a fault must be named; the clients retry a few times


def contents(store):
    return {entry.name: store.files.read(entry.name) for entry in store.files.entries()}


@pytest.fixture
def s3_store(s3_root):
    made = Store(s3_root)
    write_run(made)
    return made


ACTIONS = {
    "open": lambda root: Store(root),
    "query": lambda root: query(root, "select count(*) from runs"),
    "connect": lambda root: connect(root),
}


@contextmanager
def answering(status: int, code: str) -> Iterator[str]:
    """A server that answers everything with one S3 error."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (403, "InvalidAccessKeyId", "refuses the credentials → set AWS_ENDPOINT_URL"),
        (403, "SignatureDoesNotMatch", "refuses the credentials → set AWS_ENDPOINT_URL"),
        (403, "AccessDenied", "denies access → check the bucket's policy"),
        (404, "NoSuchBucket", "there is no such bucket → create it, or correct MECH_STORE"),
    ],
)
def test_a_refusing_server_is_named(s3_root, monkeypatch, action, status, code, message):
    with answering(status, code) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        began = time.monotonic()
        with pytest.raises(MechError, match=message):
            ACTIONS[action](s3_root)
    assert time.monotonic() - began < PATIENCE


@pytest.mark.parametrize("action", ACTIONS)
def test_a_wrong_bucket_is_named(s3_root, action):
    with pytest.raises(MechError, match="s3://no-such-bucket-here/x: there is no such bucket"):
        ACTIONS[action]("s3://no-such-bucket-here/x")


@pytest.mark.parametrize("action", ACTIONS)
def test_a_server_that_is_not_there_is_named(s3_root, monkeypatch, action):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(MechError, match="the S3 server does not answer → check AWS_ENDPOINT_URL"):
        ACTIONS[action](s3_root)
    assert time.monotonic() - began < PATIENCE


def test_missing_credentials_are_named(s3_root, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(MechError, match="credentials → set AWS_ENDPOINT_URL"):
        Store(s3_root)


def test_a_server_that_goes_away_in_the_middle_is_named_and_nothing_changes(s3_store, monkeypatch):
    before = contents(s3_store)
    with answering(503, "SlowDown") as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        with pytest.raises(MechError, match="fails or is overloaded"):
            write_run(Store(s3_store.root), steps=(3,))
    monkeypatch.undo()
    assert contents(s3_store) == before


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{live}'",
        "copy (select 1) to '{live}' (use_tmp_file false)",
        "copy (select 1) to '{free}'",
        "explain analyze copy (select 1) to '{live}' (use_tmp_file false)",
        "attach '{free}' as other",
        "select * from read_text('{mark}')",
        "select * from glob('{everything}')",
        "select * from read_parquet('{free}')",
    ],
)
def test_sql_cannot_write_and_sees_nothing_but_rows(s3_store, sql):
    before = contents(s3_store)
    live = next(name for name in before if name.endswith(".parquet"))
    places = {"live": live, "free": "free.parquet", "mark": "store.json", "everything": "**"}
    text = sql.format(**{key: s3_store.files.url(name) for key, name in places.items()})
    with connect(s3_store.root) as connection, pytest.raises((duckdb.Error, PermissionError)):
        connection.execute(text).fetchall()
    assert contents(s3_store) == before


def _replace(root: str, process: int, rounds: int, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    store = Store(root)
    for round_ in range(rounds):
        for first in (0, 10):
            write_run(store, f"run{process}", range(first, first + 10), round_)


def test_many_processes_lose_nothing(s3_store, server):
    """Four writers beside a reader; each batch of ten steps is old or new, never mixed."""
    processes, rounds = 4, 5
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_replace, args=(s3_store.root, number, rounds, server.environment))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    looks = 0
    sql = "select run, step // 10, count(*), count(distinct value) from mechanism_values where run <> 'r' group by all"
    while any(worker.is_alive() for worker in workers):
        assert {row[2:] for row in query(s3_store.root, sql).rows()} <= {(10, 1)}
        looks += 1
    assert [worker.exitcode for worker in workers] == [0] * processes
    assert looks
    rows = query(s3_store.root, "select run, step, value from mechanism_values where run <> 'r' order by all").rows()
    assert rows == [(f"run{n}", step, rounds - 1.0) for n in range(processes) for step in range(20)]
    assert verify_store(s3_store.files).damage == []
    maintain_store(s3_store)
    assert query(s3_store.root, "select count(*) from mechanism_values").rows() == [(20 * processes + 2,)]


_DIES = """
import sys
from tests.support.rows import write_run
from mech_pipeline.store.store import Store
store = Store(sys.argv[1])
for value in range(1000):
    store.put_blob("checkpoints/run=r/step=00000001", "x", bytes(100_000))
    write_run(store, "killed", range(10), value)
    print(value, flush=True)
"""


def test_a_writer_killed_at_any_moment_loses_nothing_acknowledged(s3_store, server):
    for attempt in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", _DIES, s3_store.root],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **server.environment},
        )
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(2 + attempt)]
        time.sleep(0.013 * attempt)
        process.kill()
        acknowledged += process.stdout.read().splitlines()
        process.stdout.close()
        process.wait()
        rows = query(
            s3_store.root, "select step, value from mechanism_values where run = 'killed' order by step"
        ).rows()
        assert [step for step, _ in rows] == list(range(10))
        assert len({value for _, value in rows}) == 1
        assert rows[0][1] >= int(acknowledged[-1])
    damage = verify_store(s3_store.files).damage
    assert {fault.kind for fault in damage} <= {"unrecorded"}, "killed between its commit and its record"


def test_one_word_moves_an_experiment_to_s3_and_its_results_are_the_same(s3_root, server, tmp_path):
    """The whole tiny experiment: in a folder, on S3; then nothing is left to do, and all is whole."""
    write_project(tmp_path, **FINISHED)
    mech(tmp_path, "run", "experiments/tiny.yaml", MECH_STORE=s3_root, **server.environment)
    roots = (str(finished_project() / "store"), s3_root)
    names = {  # what is computed; rows name files by chance, so without these names
        "mechanism_values": "*", "head_scores": "*", "ledger": "*", "ledger_balance": "*", "formation": "*",
        "examples": "*", "checkpoints": "* exclude (uri)", "gradients": "* exclude (uri)",
    }  # fmt: skip
    for name, columns in names.items():
        local, remote = (query(root, f"select {columns} from {name} order by all") for root in roots)
        assert local.equals(remote), name
        assert len(local), name
    assert verify_store(open_files(s3_root)).damage == []
    report = Path(mech(tmp_path, "report", "tiny", MECH_STORE=s3_root, **server.environment).stdout.strip())
    assert report == tmp_path / ".mech" / "reports" / "tiny.html"
    assert "<html" in report.read_text()


def test_old_names_are_listed_page_by_page(s3_store):
    for number in range(1005):
        s3_store.files.write(f"many/{number:04d}", b"")
    assert len(s3_store.files.names("many")) == 1005
    assert s3_store.files.names("many", after="1002") == ["1003", "1004"]
    assert sum(1 for _ in s3_store.files.entries("many")) == 1005
