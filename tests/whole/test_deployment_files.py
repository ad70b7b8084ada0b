"""What the files of a deployment promise: docker-compose.yml, Dockerfile, .env.example, launchers of Kubernetes and Ray."""

import os
import re
import runpy
import shutil
import subprocess
import tomllib

import dagster as dg
import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from setuptools import find_namespace_packages

from mech_pipeline.provenance import git_commit
from tests.support.compose_file import COMPOSE, CPU, OURS, ROOT, optional, required, services
from tests.support.docs_commands import commands

LONG_RUNNING = ("postgres", "objects", "user_code", "webserver", "daemon")
BATCHING = {"DAGSTER_EVENT_BATCH_SIZE": "1000", "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "1"}
EXAMPLE = (ROOT / ".env.example").read_text()


def test_the_services_are_those_of_the_documentation():
    assert set(services()) == {*LONG_RUNNING, "prepare"}


@pytest.mark.parametrize("name", services())
def test_nothing_runs_as_root_or_reaches_dockers_socket(name):
    service = services()[name]
    assert service["user"] in {"postgres", "1000:1000"}
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    assert "docker.sock" not in str(service)


@pytest.mark.parametrize("name", services())
def test_ports_are_open_to_this_machine_only(name):
    for port in services()[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port), port
    assert services()[name].get("network_mode") is None, "else its ports would be the machine's"


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_what_runs_on_is_checked_and_comes_back(name):
    service = services()[name]
    assert {"test", "interval", "timeout", "retries"} <= set(service["healthcheck"])
    assert service["restart"] == "unless-stopped"


def test_dagsters_services_start_after_what_they_need():
    found = services()
    assert {needed["condition"] for needed in found["prepare"]["depends_on"].values()} == {"service_healthy"}
    assert found["user_code"]["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}
    for name in ("webserver", "daemon"):
        assert found[name]["depends_on"] == {"user_code": {"condition": "service_healthy"}}


def test_secrets_come_from_the_environment_and_nowhere_else():
    for service in services().values():
        for name, value in service["environment"].items():
            if re.search(r"PASSWORD|SECRET|ACCESS_KEY|PG_URL", name):
                assert required(value), f"{name} must refuse to be empty"
    url = services()["daemon"]["environment"]["DAGSTER_PG_URL"]
    assert re.fullmatch(r"postgresql\+psycopg2://dagster:\$\{POSTGRES_PASSWORD:\?[^}]+\}@postgres:5432/dagster", url)


def test_the_example_names_every_variable_and_gives_no_secret_away():
    text = COMPOSE.read_text()
    empty = set(re.findall(r"^(\w+)=$", EXAMPLE, flags=re.M))
    assert empty == required(text)
    assert set(re.findall(r"^# (\w+)=", EXAMPLE, flags=re.M)) == optional(text) - {"GIT_COMMIT"} | {"COMPOSE_FILE"}
    assert "/.env" in (ROOT / ".gitignore").read_text().splitlines()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in ignored if not line.startswith("#")) == "*"
    assert "!.env" not in ignored


@pytest.mark.parametrize("name", OURS)
def test_every_process_that_writes_events_writes_them_in_batches(name):
    environment = services()[name]["environment"]
    assert {key: environment[key] for key in BATCHING} == BATCHING


def test_the_gpu_is_reserved_for_the_code_server_and_can_be_left_out():
    reserved = {name for name, service in services().items() if "nvidia" in str(service)}
    assert reserved == {"user_code"}
    (device,) = services()["user_code"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert services(CPU) == {"user_code": {"deploy": None}}
    assert "deploy: !reset null" in CPU.read_text()
    assert f"COMPOSE_FILE={COMPOSE.name}:{CPU.relative_to(ROOT)}" in EXAMPLE


def test_images_of_others_are_pinned():
    others = {service["image"] for name, service in services().items() if name not in OURS}
    assert all(re.fullmatch(r"[\w./-]+:\d[\w.-]+", image) for image in others), others


def test_the_image_takes_what_is_there_pins_pytorch_and_has_no_root():
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, flags=re.M)]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in (source for sources in copied for source in sources):
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, f"{source} is not sent to the builder"
    (pin,) = set(re.findall(r"torch==[\d.]+", dockerfile))
    assert f'"{pin}"' in (ROOT / "pyproject.toml").read_text()
    assert re.findall(r"^USER (.+)$", dockerfile, flags=re.M) == ["1000:1000"]


def test_every_folder_of_the_package_is_installed_into_the_image():
    """An editable install hides a missing one: it reads the folders themselves."""
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    listed = {name for name in find_namespace_packages(str(ROOT), **asked) if "__pycache__" not in name}
    research = {path.parent.relative_to(ROOT).parts for path in (ROOT / "mech_pipeline").rglob("*.py")}
    outside = {
        path.parent.relative_to(ROOT).parts for top in ("assets", "resources") for path in (ROOT / top).rglob("*.py")
    }
    folders = {*research, *(("mech_pipeline", *parts) for parts in outside)}
    assert listed == {".".join(parts) for parts in folders}


def test_a_result_from_an_image_names_the_commit_that_it_was_built_from(monkeypatch):
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    assert 'ARG GIT_COMMIT=""\nENV MECH_GIT_COMMIT=$GIT_COMMIT\n' in dockerfile
    assert services()["user_code"]["build"]["args"]["GIT_COMMIT"] == "${GIT_COMMIT:-}"
    monkeypatch.setenv("MECH_GIT_COMMIT", "0123abc")
    git_commit.cache_clear()
    assert git_commit() == "0123abc"
    git_commit.cache_clear()


def test_the_bucket_is_made_once(server, monkeypatch):
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    make_bucket = runpy.run_path(str(ROOT / "deploy" / "prepare.py"))["make_bucket"]
    assert [make_bucket("prepared-twice"), make_bucket("prepared-twice")] == [True, False]


def compose_command() -> list[str] | None:
    """`docker compose`, else the older `docker-compose`; none if this machine has neither."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) and subprocess.run([*command, "version"], capture_output=True).returncode == 0:
            return command
    return None


@pytest.fixture
def compose():
    """Runs `config`, which reads, completes and checks the file."""
    command = compose_command()
    if command is None:
        pytest.skip("neither `docker compose` nor `docker-compose` is on this machine")

    def config(*files, **variables):
        options = [word for file in files for word in ("--file", str(file))]
        environment = {name: value for name, value in os.environ.items() if name not in required(COMPOSE.read_text())}
        return subprocess.run(
            [*command, *options, "config"], cwd=ROOT, env=environment | variables, capture_output=True, text=True
        )

    return config


def test_compose_accepts_the_file_and_refuses_to_start_without_secrets(compose):
    secrets = dict.fromkeys(required(COMPOSE.read_text()), "secret")
    accepted = compose(COMPOSE, **secrets)
    assert accepted.returncode == 0, accepted.stderr
    found = yaml.safe_load(accepted.stdout)["services"]
    assert (
        found["daemon"]["environment"]["DAGSTER_PG_URL"] == "postgresql+psycopg2://dagster:secret@postgres:5432/dagster"
    )
    assert found["user_code"]["deploy"]["resources"]["reservations"]["devices"]
    refused = compose(COMPOSE)
    assert refused.returncode != 0
    assert "copy .env.example to .env" in refused.stderr


def test_compose_takes_the_gpu_away(compose):
    if compose_command() == ["docker-compose"]:
        pytest.skip("docker-compose 1 does not know !reset")
    found = compose(COMPOSE, CPU, **dict.fromkeys(required(COMPOSE.read_text()), "secret"))
    assert found.returncode == 0, found.stderr
    assert "nvidia" not in found.stdout


@pytest.fixture
def joined(tmp_path):
    """Dagster's view of deploy/dagster.yaml with a launcher appended, as the documentation has people do."""

    def join(launcher: str) -> InstanceRef:
        parts = [ROOT / "deploy" / "dagster.yaml", ROOT / "deploy" / launcher / "run_launcher.yaml"]
        (tmp_path / "dagster.yaml").write_text("".join(part.read_text() for part in parts))
        return InstanceRef.from_dir(str(tmp_path))

    return join


def test_a_run_becomes_a_kubernetes_job_with_a_gpu(joined, monkeypatch):
    pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed")
    from dagster_k8s.job import construct_dagster_k8s_job

    monkeypatch.setattr("kubernetes.config.load_incluster_config", lambda: None)  # there is no cluster to read it from
    monkeypatch.setenv("MECH_NAMESPACE", "research")
    monkeypatch.setenv("MECH_IMAGE", "registry.example/mech-pipeline:1")
    launcher = joined("kubernetes").run_launcher
    context = launcher.get_container_context_for_run(dg.DagsterRun(job_name="__ASSET_JOB"))
    assert context.namespace == "research"
    job_config, pod_config = context.get_k8s_job_config(None, launcher), context.run_k8s_config
    made = construct_dagster_k8s_job(job_config, ["dagster"], "a-run", user_defined_k8s_config=pod_config).to_dict()
    assert made["spec"]["ttl_seconds_after_finished"] == 86400
    pod = made["spec"]["template"]["spec"]
    assert pod["service_account_name"] == "mech-pipeline"
    assert pod["security_context"]["run_as_non_root"] is True
    (container,) = pod["containers"]
    assert container["image"] == "registry.example/mech-pipeline:1"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    sources = [(kind, source[kind]["name"]) for source in container["env_from"] for kind in source if source[kind]]
    assert set(sources) == {("config_map_ref", "mech-pipeline"), ("secret_ref", "mech-pipeline")}
    (mount,) = container["volume_mounts"]
    assert (mount["mount_path"], mount["sub_path"]) == ("/srv/mech/dagster.yaml", "dagster.yaml")
    (volume,) = pod["volumes"]
    assert (volume["name"], volume["config_map"]["name"]) == (mount["name"], "mech-pipeline-dagster")


def test_ray_gets_a_gpu_and_everything_that_a_run_needs(joined, monkeypatch):
    pytest.importorskip("dagster_ray", reason="dagster-ray is not installed")
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    launcher = joined("ray").run_launcher
    assert type(launcher).__name__ == "RayRunLauncher"
    assert (launcher.address, launcher.num_gpus) == ("http://127.0.0.1:8265", 1)
    ours = set(services()["daemon"]["environment"]) - {"MECH_CODE_HOST", "MECH_CODE_PORT"}
    assert set(launcher.env_vars) == ours | {"DAGSTER_HOME", "MECH_HOME"}


def test_the_documentation_names_services_and_files_that_there_are():
    typed = " ".join(commands("docs/deployment.md")) + (ROOT / "docs" / "deployment.md").read_text()
    assert set(re.findall(r"docker compose exec (\w+)", typed)) <= set(services())
    named = set(re.findall(r"(?<![\w/])(?:deploy|tests|benchmarks|assets|experiments)/[\w./-]+\.\w+", typed))
    assert len(named) > 8
    assert {path for path in named if not (ROOT / path).is_file()} == set()
