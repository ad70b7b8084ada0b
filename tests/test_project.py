"""The project is found once: from variables, or from the folder one stands in."""

import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.project import Project, find_mechanisms, find_project, find_store


def test_variables_name_everything(tmp_path):
    (tmp_path / "mine").mkdir()
    environment = {"MECH_HOME": str(tmp_path), "MECH_STORE": "s3://bucket/prefix/", "MECH_MECHANISMS": "mine"}
    project = find_project(environment)
    assert project == Project(tmp_path, "s3://bucket/prefix", tmp_path / "mine")
    assert project.local_folder == tmp_path / ".mech"
    assert find_store(environment) == project.store
    assert find_mechanisms(environment) == project.mechanisms


def test_without_variables_it_is_the_nearest_folder_with_a_dagster_yaml(tmp_path, monkeypatch):
    (tmp_path / "dagster.yaml").touch()
    (tmp_path / "mechanisms").mkdir()
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    project = find_project({})
    assert project == Project(tmp_path, str(tmp_path / "store"), tmp_path / "mechanisms")
    assert project.local_folder == tmp_path / "store"
    assert find_store({"MECH_STORE": "elsewhere"}) == str(tmp_path / "a" / "b" / "elsewhere")


def test_outside_a_project_only_a_store_can_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MechError, match=f"no dagster.yaml in {tmp_path} or above it → run inside the project folder"):
        find_project({"MECH_STORE": "store"})
    assert find_store({"MECH_STORE": "store"}) == str(tmp_path / "store")
    assert find_mechanisms({}) is None
    with pytest.raises(MechError, match="MECH_MECHANISMS names .*nowhere, which is no folder → name one, or unset it"):
        find_mechanisms({"MECH_MECHANISMS": "nowhere"})
