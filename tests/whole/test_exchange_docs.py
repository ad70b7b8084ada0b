"""docs/exchange.md: every command works, in its order, on a finished project."""

import shlex
import shutil

import pytest

from tests.support.command_line import finished_project, mech
from tests.support.docs_commands import commands, for_tiny

COMMANDS = commands("docs/exchange.md")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    home = tmp_path_factory.mktemp("copied") / "project"
    shutil.copytree(finished_project(), home)
    return home


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_works(project, command):
    program, *words = shlex.split(for_tiny(command))
    assert program == "mech"
    assert mech(project, *words).returncode == 0
