"""What a visitor of the repository meets first: licence, citation, contribution guide, and automation that runs what make runs."""

import re
import tomllib

import pytest
import yaml

from tests.support.places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
# The fields that the schema of CFF 1.2.0 requires, and its list of all fields that we use.
CFF_REQUIRED = {"cff-version", "message", "title", "authors"}
CFF_USED = CFF_REQUIRED | {"type", "version", "license", "abstract", "keywords"}


def make_lines(target):
    """The recipe of a target of the Makefile, variables put in."""
    text = (ROOT / "Makefile").read_text()
    variables = dict(re.findall(r"^(\w+)\s*:?=\s*(\S+)$", text, flags=re.M))
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", text, flags=re.M)
    lines = [line.strip().lstrip("@") for line in recipe[1].splitlines()]
    for _ in variables:  # variables are made of others
        lines = [re.sub(r"\$\((\w+)\)", lambda match: variables.get(match[1], match[0]), line) for line in lines]
    return lines


def test_the_licence_is_apache_and_the_package_says_so():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n" in text
    assert "Version 2.0, January 2004" in text
    assert "The mech_pipeline authors" in text
    assert PROJECT["license"] == CITATION["license"] == "Apache-2.0"
    assert all((ROOT / file).is_file() for file in PROJECT["license-files"])


def test_the_citation_has_the_fields_of_its_format():
    assert CITATION.keys() >= CFF_REQUIRED
    assert CITATION.keys() <= CFF_USED
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"
    assert all(author.keys() <= {"name", "family-names", "given-names"} for author in CITATION["authors"])


def test_versions_agree():
    changes = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## (\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d$", changes, flags=re.M)
    assert "\n## Unreleased\n" in changes
    assert str(CITATION["version"]) == PROJECT["version"] == released[0]


def test_pre_commit_runs_what_make_lint_runs_and_needs_no_network():
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert [hook["entry"] for hook in hooks] == make_lines("style") + make_lines("lint")
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in hooks)


def test_the_workflow_runs_the_script_that_runs_make_test():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    commands = [step["run"].strip() for step in steps if "run" in step]
    assert commands[-1] == ".ci/run"
    assert all(command.startswith("sudo apt-get") for command in commands[:-1]), "whatever is tested, .ci/run tests it"
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[-1].startswith("make test")
    python = next(step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", ""))
    assert PROJECT["requires-python"].startswith(f">={python},")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_page_names_only_targets_that_make_has(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text(), flags=re.M | re.S)
    named = {match for block in blocks for match in re.findall(r"^make ([\w-]+)", block, flags=re.M)}
    assert named
    assert named <= targets


def test_the_guide_to_contribute_fits_a_screen():
    assert len((ROOT / "CONTRIBUTING.md").read_text().splitlines()) <= 60
