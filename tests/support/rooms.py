"""The rooms of the project as Markdown: every package with the first sentence of its docstring.

docs/architecture.md has the large ones, docs/internals/rooms.md all. To write them again: python -m tests.support.rooms
"""

import ast
import re
from pathlib import Path

from tests.support.places import ROOT

SHOWN = {ROOT / "docs" / "architecture.md": 2, ROOT / "docs" / "internals" / "rooms.md": 9}
"""Pages, and how deep each looks into the tree."""

_ROOMS = re.compile(r"(<!-- rooms: begin.*?-->\n)(.*?)(<!-- rooms: end -->)", flags=re.S)


def rooms_markdown(depth: int) -> str:
    """One line per package of the tree, rooms inside rooms indented.

    Args:
        depth: of the innermost packages that are listed; those of the root have 1.
    """
    files = (path for top in ("mech_pipeline", "resources", "assets") for path in (ROOT / top).rglob("__init__.py"))
    packages = sorted(path.parent.relative_to(ROOT) for path in files)  # rglob does not follow the package's links
    return "\n" + "\n".join(_line(package) for package in packages if len(package.parts) <= depth) + "\n\n"


def rooms_of(page: Path) -> str:
    """What a page has between its marks."""
    found = _ROOMS.search(page.read_text(encoding="utf-8"))
    assert found is not None, f"{page} lost its marks"
    return found[2]


def _line(package: Path) -> str:
    return f"{'  ' * (len(package.parts) - 1)}- `{package}/`: {_first_sentence(package)}"


def _first_sentence(package: Path) -> str:
    docstring = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=[.?])\s", " ".join(docstring.split()))[0].removesuffix(".")


if __name__ == "__main__":
    for page, depth in SHOWN.items():
        text = page.read_text(encoding="utf-8")
        page.write_text(
            _ROOMS.sub(lambda match, depth=depth: match[1] + rooms_markdown(depth) + match[3], text), encoding="utf-8"
        )
