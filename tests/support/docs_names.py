"""The files, modules and names that a page of the documentation mentions in backticks, and whether they are there."""

import re
from pathlib import Path

from tests.support.places import ROOT

PACKAGE = ROOT / "mech_pipeline"
_SUFFIXES = ("py", "md", "yaml", "yml", "toml", "txt", "cff", "html")
_FILE = re.compile(rf"`((?:[\w.-]+/)*[\w.-]+\.(?:{'|'.join(_SUFFIXES)}))(?::([\w.]+))?`")
_FOLDER = re.compile(r"`((?:[\w.-]+/)+)`")
_DOTTED = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+)(?::([\w.]+))?`")
# What a person makes, and files that programs write: no part of the repository.
THEIRS = {
    "mechanisms/bracket.py", "mechanisms/text_loss.py", "report.html", "weights.parquet", "history.sql", "mechanisms/", "store/",
    "reports/", "checksums/", "quarantine/", ".mech/", "settings.env", "secrets.env", "gradients/", "checkpoints/", "tokens/",
    ".dagster/", "store.json", ".dagster/last_error.txt", "prepare.py", "sweeps/", "sketches/",
}  # fmt: skip


def missing(document: str) -> list[str]:
    """Whatever the page names and the repository lacks, as the page writes it."""
    text = re.sub(r"^```.*?^```", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.M | re.S)
    page = (ROOT / document).parent
    found = [name for name, symbol in _FILE.findall(text) if name not in THEIRS and not _is_there(name, symbol, page)]
    found += [name for name in _FOLDER.findall(text) if name not in THEIRS and _path(name, page) is None]
    return found + [
        f"{module}:{symbol}"
        for module, symbol in _DOTTED.findall(text)
        if module not in THEIRS and not _is_module(module, symbol)
    ]


def _path(name: str, page: Path) -> Path | None:
    """Under the repository, the package, or beside the page."""
    return next((base / name for base in (ROOT, PACKAGE, page) if (base / name).exists()), None)


def _is_there(name: str, symbol: str, page: Path) -> bool:
    path = _path(name, page)
    return path is not None and (not symbol or _defines(path, symbol))


def _defines(path: Path, symbol: str) -> bool:
    """Whether a module defines a name, or the last part of `Class.name`, or takes it from another."""
    text = path.read_text(encoding="utf-8")
    return all(
        re.search(rf"^\s*(?:def |class |from .* import .*\b)?{part}\b", text, flags=re.M) for part in symbol.split(".")
    )


def _is_module(dotted: str, symbol: str) -> bool:
    """`data.order:examples_at_step` and `data.order` name modules below `mech_pipeline`; `training.threads` is a key of a file."""
    first = PACKAGE / dotted.split(".")[0]
    path = PACKAGE.joinpath(*dotted.split("."))
    file = path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
    if symbol:
        return file.is_file() and _defines(file, symbol)
    return file.is_file() or not first.is_dir() or _is_field(dotted)


def _is_field(dotted: str) -> bool:
    """A table's column or a field of an experiment file, which may begin like a package: `formation.censored`."""
    last = dotted.rsplit(".", 1)[-1]
    described = [*(PACKAGE / "spec").glob("*.py"), *(PACKAGE / "store" / "tables").glob("*.py")]
    return any(
        re.search(rf"^\s+{last}: |Column\(\s*\"{last}\"", path.read_text(encoding="utf-8"), flags=re.M)
        for path in described
    )
