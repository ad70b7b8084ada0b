"""A real S3 API server (ministack) on 127.0.0.1, in a process of its own, with its data in memory."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from botocore.session import Session

_START_SECONDS = 60
_ONLY_S3_ON_LOOPBACK = {
    "BIND_HOST": "127.0.0.1",
    "SERVICES": "s3",
    "S3_PERSIST": "0",
    "IOT_MTLS_ENABLED": "0",  # else it also listens on all interfaces, port 8883
    "SFTP_ENABLED": "0",
    "DOCKER_HOST": "",
}


@dataclass(frozen=True)
class S3Server:
    """A running server and the environment variables that lead to it."""

    endpoint: str
    process: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
        }

    def new_bucket(self) -> str:
        """Makes an empty bucket and returns its address."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        client = Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test-secret",
        )
        client.create_bucket(Bucket=name)
        return f"s3://{name}"


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """A server that lives as long as the block; its log is a file in the folder."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    environment = {**os.environ, **_ONLY_S3_ON_LOOPBACK, "GATEWAY_PORT": str(port)}
    with (folder / "ministack.log").open("wb") as log:
        command = [sys.executable, "-m", "ministack"]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_it_answers(endpoint, process)
            yield S3Server(endpoint, process.pid)
        finally:
            process.terminate()
            process.wait(20)


def _wait_until_it_answers(endpoint: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the S3 server did not start; see ministack.log")


def free_port() -> int:
    """A port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
