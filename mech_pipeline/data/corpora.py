"""Corpora: real text with its provenance. Each reader returns documents in a fixed order.

Sources: the running Python's standard library (about 10 MB, on every machine), text files by glob, and Hugging Face
datasets by hub name or from a folder written with `save_to_disk`.
"""

import glob
import hashlib
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.spec.data import Corpus

_NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


@dataclass(frozen=True)
class Document:
    """One document: which corpus it is from, its path or index there, and its text."""

    source: str
    name: str
    text: str


def read_corpus(spec: Corpus) -> list[Document]:
    """All non-empty documents of a corpus, in a fixed order.

    Raises:
        MechError: nothing is found, or a file is not UTF-8 text.
    """
    if spec.python_stdlib:
        documents = _read_python_stdlib()
    elif spec.files is not None:
        documents = _read_files(spec.files)
    else:
        documents = _read_dataset(spec)
    documents = [document for document in documents if document.text.strip()]
    if not documents:
        raise MechError(f"the corpus is empty: {_describe(spec)} has no text", "name files or a dataset that hold text")
    return documents


def corpus_sha256(documents: list[Document]) -> str:
    """SHA-256 of names and contents, in order."""
    digest = hashlib.sha256()
    for document in documents:
        text = document.text.encode()
        digest.update(f"{document.source}\0{document.name}\0{len(text)}\0".encode())
        digest.update(text)
    return digest.hexdigest()


def _describe(spec: Corpus) -> str:
    return "the standard library" if spec.python_stdlib else spec.files or f"dataset {spec.dataset}"


def _read_python_stdlib() -> list[Document]:
    """Tests are left out because some distributions ship without them, `_sysconfigdata` because it names the machine."""
    root = Path(sysconfig.get_paths()["stdlib"])
    source = f"python-{sys.version_info.major}.{sys.version_info.minor}-stdlib"
    documents = []
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if _NOT_LIBRARY & set(relative.parts) or path.name.startswith("_sysconfigdata"):
            continue
        try:
            documents.append(Document(source, relative.as_posix(), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue  # a handful of files in other encodings; skipping them keeps the corpus plain UTF-8
    return documents


def _read_files(pattern: str) -> list[Document]:
    documents = []
    for name in sorted(glob.glob(pattern, recursive=True)):
        path = Path(name)
        if not path.is_file():
            continue
        try:
            documents.append(Document("files", name, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError as error:
            raise MechError(
                f"corpus file {name} is not UTF-8 text: {error.reason}", "convert it, or narrow `files`"
            ) from error
    if not documents:
        raise MechError(f"the corpus is empty: no file matches {pattern!r} in {Path.cwd()}", "check `corpus.files`")
    return documents


def _read_dataset(spec: Corpus) -> list[Document]:
    import datasets

    assert spec.dataset is not None, "the corpus model allows exactly one source"
    try:
        if Path(spec.dataset).is_dir():
            loaded = datasets.load_from_disk(spec.dataset)
            table = loaded[spec.split] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            table = datasets.load_dataset(spec.dataset, split=spec.split)
    except Exception as error:
        raise MechError(
            f"dataset {spec.dataset!r} split {spec.split!r} cannot be loaded: {' '.join(str(error).split())[:300]}",
            "check `corpus.dataset` and `corpus.split`, or the network",
        ) from error
    if spec.column not in table.column_names:
        raise MechError(
            f"dataset {spec.dataset!r} has no column {spec.column!r}",
            f"set `corpus.column` to one of {', '.join(table.column_names)}",
        )
    return [Document(spec.dataset, f"row {index}", str(text)) for index, text in enumerate(table[spec.column])]
