"""docker-compose.yml without Docker: its commands, environment and health checks as processes on 127.0.0.1."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.compose_file import ROOT, interpolate, services
from tests.support.postgres_server import PASSWORD, PostgresServer
from tests.support.s3_server import S3Server, free_port

_PATIENCE = 180  # seconds; reached only if something is broken


@dataclass
class Deployment:
    """The services of one compose file, some of them running.

    Attributes:
        home: what is /srv/mech in the image.
        places: what names of services and ports become here.
    """

    home: Path
    places: dict[str, str]
    environment: dict[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, *names: str) -> None:
        """Starts services."""
        for name in names:
            with (self.home / f"{name}.log").open("ab") as log:
                self.running[name] = subprocess.Popen(
                    self._here(services()[name]["command"]),
                    cwd=self.home,
                    env=self.environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def wait_until_healthy(self, name: str) -> None:
        """Waits until a service's own health check says so."""
        kind, *check = services()[name]["healthcheck"]["test"]
        assert kind == "CMD"
        end = time.monotonic() + _PATIENCE
        while self.running[name].poll() is None and time.monotonic() < end:
            time.sleep(1)  # a check is a Python process too: asked without a pause it keeps the service from starting
            if (
                subprocess.run(self._here(check), env=self.environment, cwd=self.home, capture_output=True).returncode
                == 0
            ):
                return
        raise AssertionError(f"{name} is not healthy: {(self.home / f'{name}.log').read_text()[-3000:]}")

    def wait_for_port(self, name: str, port: int) -> None:
        """Waits until a service listens, which costs nothing while it is busy starting."""
        host, here = self.places[f"127.0.0.1:{port}"].split(":")
        end = time.monotonic() + _PATIENCE
        while self.running[name].poll() is None and time.monotonic() < end:
            with suppress(OSError), socket.create_connection((host, int(here)), timeout=5):
                return
            time.sleep(0.2)
        raise AssertionError(f"{name} does not listen: {(self.home / f'{name}.log').read_text()[-3000:]}")

    def run_once(self, name: str) -> str:
        """Runs a service to its end and returns what it printed."""
        command = self._here(services()[name]["command"])
        done = subprocess.run(command, cwd=self.home, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def kill(self, name: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Ends a service and everything it has started."""
        process = self.running.pop(name)
        os.killpg(process.pid, how)
        process.wait(60)

    def graphql(self, query: str, **variables: Any) -> Any:
        """The one field that a query asks of the webserver."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{self.places['127.0.0.1:3000']}/graphql", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        (value,) = found["data"].values()
        return value

    def _here(self, words: list[str]) -> list[str]:
        """A command with hosts and ports of this machine."""
        return [self._word(word, before) for before, word in zip(["", *words], words, strict=False)]

    def _word(self, word: str, before: str) -> str:
        if before == "--port":
            return self.places[f"127.0.0.1:{word}"].split(":")[1]
        for there, here in {"0.0.0.0": "127.0.0.1", **self.places}.items():
            word = word.replace(there, here)
        return word


@contextmanager
def deployed(home: Path, postgres: PostgresServer, objects: S3Server, bucket: str) -> Iterator[Deployment]:
    """A prepared deployment; whatever runs of it at the end is killed."""
    for name in ("dagster.yaml", "workspace.yaml", "prepare.py"):
        shutil.copy(ROOT / "deploy" / name, home)
    places = {f"127.0.0.1:{port}": f"127.0.0.1:{free_port()}" for port in ("3000", "4000")}
    places |= {"postgres:5432": f"127.0.0.1:{postgres.port}", "http://objects:8333": objects.endpoint}
    deployment = Deployment(home, places, {**os.environ, **_environment(home, places, objects, bucket)})
    deployment.run_once("prepare")
    try:
        yield deployment
    finally:
        for name in list(deployment.running):
            deployment.kill(name)


def _environment(home: Path, places: Mapping[str, str], objects: S3Server, bucket: str) -> dict[str, str]:
    """What the compose file gives its services, and what the image sets."""
    keys = objects.environment
    variables = {"POSTGRES_PASSWORD": PASSWORD, "MECH_BUCKET": bucket, "MECH_S3_ACCESS_KEY": keys["AWS_ACCESS_KEY_ID"]}
    variables["MECH_S3_SECRET_KEY"] = keys["AWS_SECRET_ACCESS_KEY"]
    found = {name: interpolate(value, variables) for name, value in services()["daemon"]["environment"].items()}
    for there, here in places.items():
        found = {name: value.replace(there, here) for name, value in found.items()}
    found["MECH_CODE_HOST"], found["MECH_CODE_PORT"] = places["127.0.0.1:4000"].split(":")
    image = {"DAGSTER_HOME": str(home), "MECH_HOME": str(home), "MECH_CACHE": str(home / ".cache")}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return found | image | {"PATH": programs}
