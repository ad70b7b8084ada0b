"""YAML in which nothing is dropped: a key that stands twice in one mapping is an error that names both lines.

YAML forbids it; the library lets the later one win without a word. Keys that a merge (`<<`) brings may be overridden.
"""

from pathlib import Path
from typing import Any

import yaml

from mech_pipeline.errors import MechError
from mech_pipeline.system_errors import in_words

_MERGE = "tag:yaml.org,2002:merge"
_DEPTH = 100
"""Nested levels: an experiment has six."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which makes nothing but plain values."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            return super().compose_node(parent, index)
        self.depth += 1
        if self.depth > _DEPTH:
            raise _wrong(self.peek_event(), f"more than {_DEPTH} levels lie in each other")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise _wrong(name, "a key must be a word")
            key = name.value if name.tag == _MERGE else self.construct_object(name)
            line = name.start_mark.line + 1
            if key in lines:
                raise _wrong(name, f"key {key!r} is there twice, in lines {lines[key]} and {line}")
            lines[key] = line
        return node


def _wrong(place: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def read_yaml(path: Path) -> Any:
    """What a YAML file says, as plain values.

    Raises:
        MechError: it cannot be read, is not YAML, or says a thing twice.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise in_words(error) or error from error
    except Exception as error:  # a date or number that there is not is whatever Python raises for it
        raise MechError(f"{path} is not YAML: {_said(error)}", "fix that line") from error


def _said(error: Exception) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())[:200]
    mark = error.problem_mark or error.context_mark
    line = f"line {mark.line + 1}: " if mark is not None else ""
    return line + " ".join(f"{error.problem or ''} {error.context or ''}".split())
