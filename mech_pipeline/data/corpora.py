"""Corpora: real text with its provenance. Each reader gives documents in a fixed order.

Sources: the running Python's standard library (about 10 MB, on every machine), text files by glob, Hugging Face datasets
by hub name or from a folder written with `save_to_disk`, and made-up languages. A corpus may have several named parts.
"""

import os
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from mech_pipeline.data.dataset_rows import dataset_rows
from mech_pipeline.data.documents import Document, Documents, Reader, corpus_sha256
from mech_pipeline.data.file_names import matching_files
from mech_pipeline.data.languages import LANGUAGES
from mech_pipeline.data.text_files import TextFiles
from mech_pipeline.errors import MechError
from mech_pipeline.spec.data import Corpus, Generated, Source
from mech_pipeline.spec.seeds import numpy_generator

__all__ = ["Document", "Documents", "corpus_sha256", "read_corpus"]
_NOT_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}


def read_corpus(spec: Corpus) -> Documents:
    """All non-empty documents of a corpus, in a fixed order; reads everything once, keeps nothing in memory.

    Within a process, a corpus of made-up languages and of the standard library alone is read once, as long as the library's
    files keep their sizes and times: a programme of many runs asks for it several times a run.

    Raises:
        MechError: nothing is found, or a file is not UTF-8 text.
    """
    parts: dict[str, Source] = spec.parts or {"": spec}
    if all(source.generated is not None or source.python_stdlib for source in parts.values()):
        library = _library_now() if any(source.python_stdlib for source in parts.values()) else ()
        return _read_once(_Asked(spec.model_dump_json(), library, spec))
    return _read(spec)


@dataclass(frozen=True)
class _Asked:
    """A corpus that depends on nothing but its description and these files."""

    described: str
    library: tuple[tuple[str, int, int], ...]
    spec: Corpus = field(compare=False)


@lru_cache(maxsize=4)
def _read_once(asked: _Asked) -> Documents:
    return _read(asked.spec)


def _library_now() -> tuple[tuple[str, int, int], ...]:
    """(path, bytes, time of its last change) of every file of the standard library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = sorted((str(path), path.stat()) for path in _python_files(root) if path.is_file())
    return tuple((path, at.st_size, at.st_mtime_ns) for path, at in found)


def _read(spec: Corpus) -> Documents:
    parts: dict[str, Source] = spec.parts or {"": spec}
    described = [f"part {name} of the corpus" if name else "the corpus" for name in parts]

    def check(number: int, kept: int) -> None:
        if kept == 0:
            source = list(parts.values())[number]
            raise MechError(
                f"{described[number]} is empty: {_describe(source)} has no text",
                "name files or a dataset that hold text",
            )

    return Documents([_reader(source, name, spec.home) for name, source in parts.items()], check)


def _describe(spec: Source) -> str:
    if spec.generated is not None:
        return f"language {spec.generated.language}"
    return "the standard library" if spec.python_stdlib else spec.files or f"dataset {spec.dataset}"


def _reader(spec: Source, part: str, home: Path) -> Reader:
    if spec.python_stdlib:
        return _python_stdlib(part)
    if spec.files is not None:
        return _files(spec.files, part, home)
    if spec.generated is not None:
        return _Sentences(part or spec.generated.language, spec.generated)
    return dataset_rows(spec, part, home)


@dataclass(frozen=True)
class _Sentences:
    """Documents of a made-up language; each has a random stream of its own, so none depends on how many there are."""

    source: str
    spec: Generated

    def __len__(self) -> int:
        return self.spec.documents

    def __iter__(self) -> Iterator[Document]:
        return (self.read(index) for index in range(len(self)))

    def read(self, index: int) -> Document:
        language = self.spec.language
        generator = numpy_generator(self.spec.seed, f"{language}:{index}")
        return Document(self.source, f"document {index}", LANGUAGES[language](generator, **self.spec.options()))


def _python_stdlib(part: str) -> TextFiles:
    """Tests are left out because some distributions ship without them, `_sysconfigdata` because it names the machine."""
    root = Path(sysconfig.get_paths()["stdlib"])
    names = []
    for path in sorted(_python_files(root)):
        relative = path.relative_to(root)
        if path.name.startswith("_sysconfigdata"):
            continue
        try:
            path.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # a handful of files in other encodings; skipping them keeps the corpus plain UTF-8
        names.append(relative.as_posix())
    return TextFiles(part or f"python-{sys.version_info.major}.{sys.version_info.minor}-stdlib", root, names)


def _python_files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _NOT_LIBRARY]  # site-packages may be large
        yield from (Path(folder, name) for name in names if name.endswith(".py"))


def _files(pattern: str, part: str, home: Path) -> TextFiles:
    names = matching_files(pattern, home)
    if not names:
        what = f"part {part} of the corpus" if part else "the corpus"
        raise MechError(f"{what} is empty: no file matches {pattern!r} in {home}", "check `corpus.files`")
    return TextFiles(part or "files", home, names)
