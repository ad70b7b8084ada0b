"""What commands print, and how they end: literal text, every type, streams that hold little, faults of the system."""

import errno
import io
import json
import os
import sys
from pathlib import Path

import duckdb
import polars as pl
import pytest
from rich.cells import cell_len

from mech_pipeline.commands import app, output
from mech_pipeline.errors import MechError
from mech_pipeline.plain_text import PlainTable, readable
from mech_pipeline.store.reading import formats
from mech_pipeline.store.reading.columns import as_json, as_text, in_frames
from mech_pipeline.system_errors import in_words
from tests.support.places import ROOT

VALUES = {
    "interval '3 days 4 hours'": ("3 days 04:00:00", "3 days 04:00:00"),
    "'a\\xFFb'::blob": ("a\\xFFb", "a\\xFFb"),
    "1.50::decimal(10, 2)": ("1.50", 1.5),
    "timetz '10:00:00+02'": ("10:00:00+02", "10:00:00+02"),
    "map {'k': interval 1 day}": ("{k=1 day}", {"k": "1 day"}),
    "union_value(k := 1)": ("1", {"k": 1}),
    "'a'::enum('a', 'b')": ("a", "a"),
    "170141183460469231731687303715884105727::hugeint": (str(2**127 - 1), 2**127 - 1),
    "340282366920938463463374607431768211455::uhugeint": (str(2**128 - 1), 2**128 - 1),
    "[{'a': [interval 1 day]}]": ("[{'a': [1 day]}]", [{"a": ["1 day"]}]),
    "['[red]x']": ("['[red]x']", ["[red]x"]),
    "'101'::bit": ("101", "101"),
    "'infinity'::timestamp": ("infinity", "infinity"),
    "'nan'::double": ("nan", None),
    "null": ("NULL", None),
    "''": ("", ""),
}
"""An expression in SQL, how it is printed, and what it is in JSON."""


@pytest.mark.parametrize("sql", VALUES)
def test_every_type_is_shown_and_written_in_every_format(sql):
    shown, in_json = VALUES[sql]
    relation = duckdb.connect().sql(f"select {sql} as a, 7 as a")
    table = formats.as_table(as_text(relation))
    assert [cell.text for cell in table.columns[0].cells] == [shown]
    written = formats.as_bytes(as_text(relation), "csv").decode().splitlines()
    assert written[0] == "a,a_1"
    assert written[1].endswith(",7")
    assert json.loads(formats.as_bytes(as_json(relation), "json")) == [{"a": in_json, "a_1": 7}]
    parquet = pl.read_parquet(io.BytesIO(formats.as_bytes(in_frames(relation), "parquet")))
    assert parquet["a_1"].to_list() == [7]
    assert parquet["a"].is_null().to_list() == [sql == "null"]


class Stream(io.TextIOWrapper):
    """A stream of an encoding, in memory."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding)

    @property
    def text(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


def printed(monkeypatch, encoding="utf-8") -> Stream:
    """stdout of an encoding, ready to be printed to."""
    made = Stream(encoding)
    monkeypatch.setattr(sys, "stdout", made)
    output.prepare_streams()
    return made


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_tables_and_lines_hold_their_text_whatever_the_stream_can_show(monkeypatch, encoding):
    stream = printed(monkeypatch, encoding)
    text = "[b]bold[/b] :smile: naïve → 模型 [/INST]"
    table = PlainTable("[red]", "number", title="[t]", caption="[c]")
    table.add_row(text, "1")
    output.show(table)
    output.say("[/x] → \x1b[2J")
    for wanted in (
        readable(text, encoding),
        "[red]",
        "[t]",
        "[c]",
        readable("[/x] → \\x1b[2J", encoding),
    ):
        assert wanted in stream.text
    lines = [line for line in stream.text.splitlines() if line.startswith(("|", "│", "┃", "+", "└"))]
    assert len({cell_len(line) for line in lines}) == 1, "columns are as wide as what they hold"


def test_wide_tables_lose_no_digit(monkeypatch):
    stream = printed(monkeypatch)
    output.show(formats.as_table(pl.DataFrame({f"column_{n}": [10**17 + n] for n in range(30)})))
    digits = "".join(sign for line in stream.text.splitlines() for sign in line if sign.isdigit() or sign == "…")
    assert "…" not in digits
    assert digits.count("1") >= 30


@pytest.mark.parametrize(
    "code", [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, 9999]
)
def test_faults_of_the_system_name_the_file_and_a_remedy(code):
    try:
        raise RuntimeError("library") from OSError(code, os.strerror(code), "/there")
    except RuntimeError as error:
        found = in_words(error)
    assert found is not None
    assert found.problem.startswith("/there")
    assert found.next_step


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MechError("a\nb", "c"), "mech: a b → c"),
        (PermissionError(errno.EACCES, "x", "/y/[red]"), "mech: /y/[red] may not be read or written by this user → "),
        (ValueError("bad\nvalue"), "mech: ValueError: bad value → a mistake in this program; the traceback is in "),
        (duckdb.Error("boom"), "mech: Error: boom → "),
    ],
)
def test_every_error_ends_in_one_line_and_exit_code_one(monkeypatch, tmp_path, capsys, error, message):
    def command() -> int:
        raise error

    (tmp_path / "dagster.yaml").touch()
    monkeypatch.setenv("MECH_HOME", str(tmp_path))
    monkeypatch.setattr(app, "_run", command)
    assert app._ended() == 1
    said = capsys.readouterr().err
    assert said.startswith(message)
    assert said.count("\n") == 1
    if "traceback" in said:
        assert "Traceback" in (tmp_path / ".dagster" / "last_error.txt").read_text()


def test_a_result_file_is_whole_and_devices_links_and_folders_stay_what_they_are(tmp_path):
    link, pipe = tmp_path / "link.csv", tmp_path / "pipe"
    link.symlink_to(tmp_path / "real.csv")
    formats.save(link, b"x")
    assert link.is_symlink()
    assert (tmp_path / "real.csv").read_bytes() == b"x"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    formats.save(pipe, b"y")
    assert os.read(reader, 9) == b"y"
    os.close(reader)
    with pytest.raises(IsADirectoryError):
        formats.save(tmp_path, b"z")


def test_a_full_disk_and_a_reader_that_left_are_told_apart(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", gone)
        with pytest.raises(output.NobodyReads):
            output.say("x")
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="stdout") as caught:
            output.say("x")
    assert "disk is full" in str(in_words(caught.value))


def test_commands_print_in_one_place():
    for path in (ROOT / "mech_pipeline" / "commands").glob("*.py"):
        if path.name == "output.py":
            continue
        source = path.read_text()
        for forbidden in ("print(", "sys.stdout", "sys.stderr", "Console(", "rich.table"):
            assert forbidden not in source.replace("live.console.print(", ""), f"{path.name}: {forbidden}"
