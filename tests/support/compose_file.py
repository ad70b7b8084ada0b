"""docker-compose.yml as its reader sees it: services, and their values with the variables of `.env` put in."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.places import ROOT

COMPOSE, CPU = ROOT / "docker-compose.yml", ROOT / "deploy" / "docker-compose.cpu.yml"
OURS = ("prepare", "user_code", "webserver", "daemon")
"""The services that are this project's image."""
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


class _Loader(yaml.SafeLoader):
    """Knows Compose's tag for taking something away."""


_Loader.add_constructor("!reset", lambda loader, node: None)


def services(file: Path = COMPOSE) -> dict[str, Any]:
    """Every service by name; merge keys are already resolved, variables are not."""
    return dict(yaml.load(file.read_text(), _Loader)["services"])


def required(text: str) -> set[str]:
    """Variables without which Compose refuses to start."""
    return {match["name"] for match in _VARIABLE.finditer(text) if match["kind"] == "?"}


def optional(text: str) -> set[str]:
    """Variables that have a default."""
    return {match["name"] for match in _VARIABLE.finditer(text) if match["kind"] == "-"}


def interpolate(text: str, variables: Mapping[str, str]) -> str:
    """The text with variables put in, or their defaults."""

    def value(match: re.Match[str]) -> str:
        default = match["rest"] if match["kind"] == "-" else None
        found = variables.get(match["name"], default)
        assert found is not None, f"{match['name']} is not set"
        return found

    return _VARIABLE.sub(value, text)
