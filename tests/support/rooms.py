"""The rooms of the project as Markdown: every package with the first sentence of its docstring.

To see the lines after a change: python -m tests.support.rooms
"""

import ast
import re
from pathlib import Path

from tests.support.places import ROOT


def rooms_markdown() -> str:
    """One line per package of the tree, rooms inside rooms indented."""
    files = (path for top in ("mech_pipeline", "resources", "assets") for path in (ROOT / top).rglob("__init__.py"))
    packages = sorted(
        path.parent.relative_to(ROOT) for path in files
    )  # rglob does not follow the links to assets, resources
    return "\n" + "\n".join(_line(package) for package in packages) + "\n\n"


def _line(package: Path) -> str:
    return f"{'  ' * (len(package.parts) - 1)}- `{package}/`: {_first_sentence(package)}"


def _first_sentence(package: Path) -> str:
    docstring = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=[.?])\s", " ".join(docstring.split()))[0].removesuffix(".")


if __name__ == "__main__":
    print(rooms_markdown())
