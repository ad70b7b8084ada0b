"""The rooms of the project as Markdown: every package with the first sentence of its docstring.

To write them into docs/architecture.md again: python -m tests.support.rooms
"""

import ast
import re
from pathlib import Path

from tests.support.places import ROOT

PAGE = ROOT / "docs" / "architecture.md"
_ROOMS = re.compile(r"(<!-- rooms: begin.*?-->\n)(.*?)(<!-- rooms: end -->)", flags=re.S)


def rooms_markdown() -> str:
    """One line per package of the tree, rooms inside rooms indented."""
    files = (path for top in ("mech_pipeline", "resources", "assets") for path in (ROOT / top).rglob("__init__.py"))
    packages = sorted(path.parent.relative_to(ROOT) for path in files)  # rglob does not follow the package's links
    return "\n" + "\n".join(_line(package) for package in packages) + "\n\n"


def rooms_of_the_page() -> str:
    """What docs/architecture.md has between its marks."""
    found = _ROOMS.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None, f"{PAGE} lost its marks"
    return found[2]


def _line(package: Path) -> str:
    return f"{'  ' * (len(package.parts) - 1)}- `{package}/`: {_first_sentence(package)}"


def _first_sentence(package: Path) -> str:
    docstring = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=[.?])\s", " ".join(docstring.split()))[0].removesuffix(".")


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_ROOMS.sub(lambda match: match[1] + rooms_markdown() + match[3], text), encoding="utf-8")
