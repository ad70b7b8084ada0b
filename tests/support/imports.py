"""Which module of the package imports which, read from the source."""

import ast
from collections.abc import Iterator
from functools import cache

from tests.support.places import ROOT

Graph = dict[str, set[str]]


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package, assets and resources among them, by its dotted name."""
    found = {}
    for part in ("mech_pipeline", "assets", "resources"):
        for path in (ROOT / part).rglob("*.py"):  # does not follow the links from the package to the other two
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name if part == "mech_pipeline" else f"mech_pipeline.{name}"] = ast.parse(path.read_text())
    return found


@cache
def import_graph(*, functions: bool) -> Graph:
    """Imports of every module, of others of the package and from outside.

    Args:
        functions: imports inside functions and for type checking count as well, not only what loading runs.
    """
    known = modules()
    return {name: set(_imports(tree, set(known), functions)) for name, tree in known.items()}


def _imports(tree: ast.AST, known: set[str], functions: bool) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in known else str(node.module)
        elif functions or not _is_late(node):
            yield from _imports(node, known, functions)


def _is_late(node: ast.AST) -> bool:
    checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return checking or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def circles(graph: Graph) -> list[list[str]]:
    """Each circle that a walk along imports comes upon, as the modules on it."""
    found, done = [], set[str]()

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            found.append([*way[way.index(module) :], module])
        elif module in graph and module not in done:
            for other in sorted(graph[module]):
                walk(other, [*way, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])
    return found
