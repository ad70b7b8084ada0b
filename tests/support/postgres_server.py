"""A real Postgres server on 127.0.0.1, from the machine's own packages, in a process of its own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.s3_server import free_port

_START_SECONDS = 60
_ROLE = _DATABASE = "dagster"
PASSWORD = "only-on-loopback"


@dataclass(frozen=True)
class PostgresServer:
    """A running server with an empty database; only this machine reaches it."""

    port: int

    @property
    def url(self) -> str:
        """The database; psycopg 2 by name, because SQLAlchemy 2.1 takes a bare `postgresql://` for psycopg 3."""
        return f"postgresql+psycopg2://{_ROLE}:{PASSWORD}@127.0.0.1:{self.port}/{_DATABASE}"


def postgres_programs() -> Path | None:
    """The folder of `initdb` and `postgres`: the newest that Debian installed, else that on PATH; none without a server."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    on_path = shutil.which("postgres")
    candidates = [*debian, *([Path(on_path).resolve().parent] if on_path else [])]
    return next((folder for folder in candidates if {"initdb", "postgres"} <= set(os.listdir(folder))), None)


@contextmanager
def postgres_server(programs: Path) -> Iterator[PostgresServer]:
    """A server that lives as long as the block, in a folder of its own: Postgres refuses root, and root's folders it."""
    with tempfile.TemporaryDirectory(prefix="mech-postgres-", ignore_cleanup_errors=True) as name:
        folder, identity = Path(name), _unprivileged(Path(name))
        data, port = folder / "data", free_port()
        (folder / "password").write_text(PASSWORD)
        initdb = [programs / "initdb", "--pgdata", data, "--username", _ROLE, "--no-sync"]
        initdb += ["--auth", "scram-sha-256", "--pwfile", folder / "password"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **identity)
        command = [programs / "postgres", "-D", data, "-p", str(port), "-k", ""]  # no socket file: TCP on loopback only
        with (folder / "postgres.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, **identity)
            try:
                _wait_until_it_answers(programs, port, process, folder / "postgres.log")
                where = ["--host", "127.0.0.1", "--port", str(port), "--username", _ROLE]
                createdb = [programs / "createdb", *where, _DATABASE]
                subprocess.run(createdb, check=True, env={**os.environ, "PGPASSWORD": PASSWORD})
                yield PostgresServer(port)
            finally:
                process.send_signal(signal.SIGINT)  # "fast": SIGTERM would wait for clients to leave
                process.wait(30)


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Who runs the server: this user; in root's place `postgres` or `nobody`, who then owns the folder."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _wait_until_it_answers(programs: Path, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    ready = [programs / "pg_isready", "--quiet", "--host", "127.0.0.1", "--port", str(port)]
    while time.monotonic() < end and process.poll() is None:
        if subprocess.run(ready).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(f"Postgres did not start: {log.read_text()[-1000:]}")
