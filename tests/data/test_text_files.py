"""Corpora as people have them: links, names, rights, encodings, line ends, cells; read as they are or refused in a line."""

import glob
import os
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.data.file_names import matching_files
from mech_pipeline.data.text_files import line_numbers
from mech_pipeline.errors import MechError
from mech_pipeline.spec.data import Corpus

datasets.disable_progress_bars()
NAMES = st.sampled_from(["a", "b", ".h", "x.txt", "y.txt", ".z.txt", "[c].txt", "sub"])
PATTERNS = [
    "*",
    "*.txt",
    "**",
    "**/*.txt",
    "a/**",
    "a/*/x.txt",
    "**/a/**/*",
    "./*.txt",
    ".*",
    "**/[[]c].txt",
    "sub/*.t?t",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def texts(**source):
    return [document.text for document in read_corpus(Corpus(**source))]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=8), st.sampled_from(PATTERNS))
def test_patterns_find_what_glob_finds(paths, pattern):
    with tempfile.TemporaryDirectory() as folder:
        for path in (Path(folder, *parts) for parts in paths):
            if not any(parent.is_file() for parent in path.parents) and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(str(path))
        for root, asked in ((folder, pattern), ("/", f"{folder}/{pattern}")):
            found = glob.glob(asked, root_dir=root, recursive=True)
            assert matching_files(asked, Path(root)) == sorted({n for n in found if os.path.isfile(f"{root}/{n}")})


def test_every_file_is_read_once_under_its_own_name(here):
    (here / "text" / "deep").mkdir(parents=True)
    (here / "elsewhere").mkdir()
    for name in ("text/b.txt", "text/deep/c.txt", "elsewhere/d.txt"):
        (here / name).write_text(f"text of {name}")
    (here / "text/a.txt").symlink_to("b.txt")
    for link in ("text/0", "text/1", "text/deep/2"):  # followed to the end, these have 3^40 names for each file
        (here / link).symlink_to(here / "text")
    for link in ("text/3", "text/4"):
        (here / link).symlink_to(here / "elsewhere")
    (here / "text/e.txt").hardlink_to(here / "text/b.txt")
    found = read_corpus(Corpus(files="text/**/*.txt"))
    assert [document.name for document in found] == ["text/3/d.txt", "text/b.txt", "text/deep/c.txt"]


def test_what_cannot_be_looked_at_is_named(here, monkeypatch):
    (here / "a.txt").write_text("text")
    (here / "b.txt").symlink_to("b.txt")
    with pytest.raises(MechError, match=r"corpus file b\.txt is a symbolic link that leads back to itself"):
        texts(files="*.txt")
    (here / "b.txt").unlink()
    (here / "b.txt").symlink_to("gone")
    with pytest.raises(MechError, match=r"corpus file b\.txt does not exist"):
        texts(files="**/*.txt")
    (here / "b.txt").unlink()
    Path(os.fsdecode(b"caf\xe9.txt")).write_text("text")
    with pytest.raises(MechError, match=r"the name of corpus file caf\\xe9\.txt is not UTF-8 → rename it"):
        texts(files="*.txt")
    Path(os.fsdecode(b"caf\xe9.txt")).unlink()

    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(MechError, match="may not be read .* or narrow `corpus.files`"):
            texts(files="**/*.txt")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(MechError, match=r"corpus file a\.txt may not be read"):
            texts(files="*.txt")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "latin-1", "cp1252"])
def test_other_encodings_are_refused(here, encoding):
    (here / "x.txt").write_bytes("naïve text, an 'ümläut' and more".encode(encoding))
    with pytest.raises(MechError, match=r"corpus file x\.txt is not UTF-8 text: .* → convert it"):
        texts(files="*.txt")


CONTENT = st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n\ufeff\u2028\x0c\x85 é日🙂\u0301"), max_size=60)


@settings(max_examples=60, deadline=None)
@given(st.lists(CONTENT, min_size=1, max_size=4), st.booleans())
def test_the_text_of_a_file_is_its_bytes(contents, huge):
    with tempfile.TemporaryDirectory() as folder:
        contents = [text * 2000 if huge else text for text in contents]
        for number, text in enumerate(contents):
            Path(folder, f"{number}.txt").write_bytes(text.encode())
        kept = [text for text in contents if text.strip()]
        try:
            found = texts(files=f"{folder}/*.txt")
        except MechError as error:
            assert not kept or "looks like UTF-16" in str(error)  # noqa: PT017, both are right answers
        else:
            assert found == kept


@settings(max_examples=100, deadline=None)
@given(CONTENT)
def test_lines_are_those_that_editors_count(text):
    content = text.encode()
    offsets = [place for place in range(len(content)) if content[place] & 0xC0 != 0x80]
    before = [content[:place].decode() for place in offsets]
    ended = [b.replace("\r\n", "\n") if not t.startswith("\n") else b.removesuffix("\r").replace("\r\n", "\n")
             for b, t in zip(before, (content[place:].decode() for place in offsets), strict=True)]  # fmt: skip
    lines = [1 + b.count("\n") + b.count("\r") for b in ended]
    assert line_numbers(text, np.array(offsets, dtype=np.int64)).tolist() == lines


def test_a_file_that_changes_after_it_was_hashed_is_named(here):
    (here / "a.txt").write_text("text")
    found = read_corpus(Corpus(files="*.txt"))
    (here / "a.txt").write_text("other text")
    for read in (lambda: found[0], lambda: list(found)):
        with pytest.raises(MechError, match=r"document a\.txt of files has changed since the corpus was read"):
            read()


CELLS = st.one_of(
    st.lists(st.none() | CONTENT, max_size=5),
    st.lists(st.none() | st.binary(max_size=3), max_size=3),
    st.lists(st.none() | st.integers(0, 9), max_size=3),
    st.lists(st.none() | st.lists(st.text(max_size=2), max_size=2), max_size=3),
    st.lists(st.none() | st.booleans() | st.none(), max_size=3),
    st.lists(st.fixed_dictionaries({"text": st.text(max_size=2)}), max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(CELLS)
def test_cells_are_text_or_left_out_or_refused(cells):
    with tempfile.TemporaryDirectory() as folder:
        datasets.Dataset.from_dict({"text": cells}).save_to_disk(folder)
        if any(not isinstance(cell, str | None) for cell in cells):
            with pytest.raises(
                MechError, match=r"column 'text' of dataset .* holds .*, not text → set `corpus.column`"
            ):
                texts(dataset=folder)
        elif kept := [cell for cell in cells if cell and cell.strip()]:
            found = read_corpus(Corpus(dataset=folder))
            assert [document.text for document in found] == kept
            assert [found[place].text for place in range(len(found))] == kept
            assert found.n_blank == len(cells) - len(kept)
        else:
            with pytest.raises(MechError, match="has no text|holds Value|cannot be loaded"):
                texts(dataset=folder)


def test_a_split_is_the_one_that_is_asked_for(here):
    both = {
        "train": datasets.Dataset.from_dict({"text": ["one"]}),
        "test": datasets.Dataset.from_dict({"text": ["two"]}),
    }
    datasets.DatasetDict(both).save_to_disk("both")
    assert texts(dataset="both", split="test") == ["two"]
    with pytest.raises(
        MechError, match="no split 'tset' in dataset 'both' → did you mean 'test'. splits are train, test"
    ):
        texts(dataset="both", split="tset")
    for name, saved in (("none", None), ("train", "train"), ("half", "train[:50%]"), ("test", "test")):
        datasets.Dataset.from_dict({"text": [name]}, split=saved and datasets.NamedSplit(saved)).save_to_disk(name)
    for name in ("none", "train", "half"):
        assert texts(dataset=name) == [name]
    assert texts(dataset="test", split="test") == ["test"]
    with pytest.raises(MechError, match="'none' has no splits, and `corpus.split` asks for 'test'"):
        texts(dataset="none", split="test")
    for name, split in (("train", "test"), ("half", "test"), ("test", "train")):
        with pytest.raises(MechError, match=f"there is no split '{split}' in dataset '{name}': it holds the split"):
            texts(dataset=name, split=split)


def test_a_cut_dataset_is_named(here):
    datasets.Dataset.from_dict({"text": ["some text"] * 9}).save_to_disk("cut")
    os.truncate("cut/data-00000-of-00001.arrow", 100)
    with pytest.raises(MechError, match="dataset 'cut'.* cannot be loaded"):
        texts(dataset="cut")


def test_a_made_up_corpus_is_read_once_and_the_standard_library_until_its_files_change(here, monkeypatch):
    """The same object as long as nothing that it depends on changed; files of people are read each time."""
    words = {"language": "dyck", "documents": 50}
    made, again, other = (
        read_corpus(Corpus.model_validate({"generated": words | {"seed": seed}})) for seed in (0, 0, 1)
    )
    assert made is again
    assert other.sha256 != made.sha256
    (here / "library").mkdir()
    module = here / "library" / "one.py"
    module.write_text("x = 1\n")
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(here / "library")})
    before = read_corpus(Corpus(python_stdlib=True))
    assert read_corpus(Corpus(python_stdlib=True)) is before
    module.write_text("x = 12\n")
    assert texts(python_stdlib=True) == ["x = 12\n"]
    assert read_corpus(Corpus(files="library/*.py")) is not read_corpus(Corpus(files="library/*.py"))
