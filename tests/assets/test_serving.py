"""`mech ui` beside Dagster's own pages: reports and curves on one port; who may start, and what is left open."""

import fcntl
import socket

import dagster as dg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from mech_pipeline.assets.launcher.execute import announce_stop, close_stopped
from mech_pipeline.assets.serving.supervise import Served, check_free
from mech_pipeline.assets.serving.web import with_pages
from mech_pipeline.assets.tags import PROCESS_TAG
from mech_pipeline.errors import MechError
from mech_pipeline.process_identity import identity
from mech_pipeline.project import Project, report_name
from mech_pipeline.store.store import Store
from tests.support.once import filled_once
from tests.support.tiny import spec_of, train, write_text


@pytest.fixture
def project(tmp_path, monkeypatch):
    write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, str(tmp_path / "store"))


@pytest.fixture
def client(project):
    dagsters = Starlette(routes=[Route("/{path:path}", lambda request: PlainTextResponse("Dagster"))])
    with TestClient(with_pages(dagsters, project)) as made:
        yield made


def test_reports_are_read_from_the_store_and_everything_else_is_dagsters(client, project):
    store = Store(project.store)
    assert client.get("/reports/tiny.html").status_code == 404
    store.files.write(report_name("tiny"), b"<h1>When?</h1>")
    store.files.write(report_name("index"), b"all")
    assert client.get("/reports/tiny.html").text == "<h1>When?</h1>"
    assert client.get("/reports/tiny.html").headers["content-type"].startswith("text/html")
    assert client.get("/reports/").text == "all"
    assert client.get("/assets/formation").text == "Dagster"


@pytest.mark.parametrize("name", ["..%2Ftables%2Fruns", "%2e%2e%2fsecret.html", "tiny.txt"])
def test_nothing_but_reports_is_served_from_the_store(client, project, name):
    Store(project.store).files.write("secret.html", b"secret")
    assert "secret" not in client.get(f"/reports/{name}").text


def test_curves_are_drawn_when_they_are_asked_for(client, project):
    assert client.get("/curves/tiny.png").status_code == 404
    filled_once(Store(project.store), spec_of(0), train)
    found = client.get("/curves/tiny.png")
    assert found.content.startswith(b"\x89PNG")
    assert found.headers["cache-control"] == "no-store"
    assert client.get("/curves/other.png").status_code == 404
    page = client.get("/curves/%3Cb%3E").text
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_a_port_that_is_taken_is_named(project):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(MechError, match=f"port {port} is already in use"):
            Served(project, "127.0.0.1", port, print).serve()
    check_free("127.0.0.1", port)


def test_a_second_ui_of_one_project_does_not_start(project):
    (project.home / ".dagster").mkdir()
    with (project.home / ".dagster" / "ui.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(MechError, match="is up already"):
            Served(project, "127.0.0.1", 0, print).serve()


def test_what_an_ended_ui_left_open_is_stopped_and_nothing_else(tmp_path):
    gone, there = tmp_path / "gone", tmp_path / "there"
    there.touch()
    tags = {
        "server gone": {GRPC_INFO_TAG: f'{{"host": "localhost", "socket": "{gone}"}}'},
        "process gone": {PROCESS_TAG: f"{identity()}0"},
        "server there": {GRPC_INFO_TAG: f'{{"host": "localhost", "socket": "{there}"}}'},
        "this process": {PROCESS_TAG: identity()},
        "elsewhere": {GRPC_INFO_TAG: '{"host": "user_code", "port": 4000}'},
    }
    with dg.DagsterInstance.ephemeral() as instance:
        started = {
            name: instance.create_run_for_job(_job, tags=given, status=dg.DagsterRunStatus.STARTED).run_id
            for name, given in tags.items()
        }
        assert close_stopped(instance) == 2
        now = {name: instance.get_run_by_id(run).status for name, run in started.items()}
    stopped = {name for name, status in now.items() if status == dg.DagsterRunStatus.CANCELED}
    assert stopped == {"server gone", "process gone"}


def test_what_an_ending_ui_stops_is_not_called_failed(tmp_path):
    (tmp_path / "there").touch()
    here = {GRPC_INFO_TAG: f'{{"host": "localhost", "socket": "{tmp_path / "there"}"}}'}
    elsewhere = {PROCESS_TAG: identity()}
    with dg.DagsterInstance.ephemeral() as instance:
        mine, others = [
            instance.create_run_for_job(_job, tags=tags, status=dg.DagsterRunStatus.STARTED).run_id
            for tags in (here, elsewhere)
        ]
        announce_stop(instance)
        assert instance.get_run_by_id(mine).status == dg.DagsterRunStatus.CANCELING
        assert instance.get_run_by_id(others).status == dg.DagsterRunStatus.STARTED
        (tmp_path / "there").unlink()
        assert close_stopped(instance) == 1
        assert instance.get_run_by_id(mine).status == dg.DagsterRunStatus.CANCELED


@dg.job
def _job():
    pass
