"""What a verification found: fields first, and words made of them.

corrupt     the content is not what was written, or does not fit its table's description
missing     something names a file that is not there
unrecorded  a data file without checksum (its writer was killed between commit and record); its content reads well
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mech_pipeline.store.delta import DataFile
from mech_pipeline.store.files.interface import Entry


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        kind: corrupt, missing or unrecorded.
        name: the file, or the table, under the root.
        wrong: what is the matter with it, in words; empty where a missing data file says it all.
        role: data, log, older, checksum, blob, keys, report, warehouse or mark.
        table: none of a blob whose row is lost.
        file: the data file concerned, with its partition and statistics.
    """

    kind: str
    name: str
    wrong: str
    role: str
    table: str = ""
    file: DataFile | None = None

    @property
    def problem(self) -> str:
        """The fault in words, with the rows that it concerns."""
        if self.file is None:
            return self.wrong
        rows = rows_lost(self.table, self.file).words
        return f"{self.wrong}; {rows}" if self.wrong else f"{rows} is gone"


@dataclass(frozen=True)
class Lost:
    """What a table no longer holds and must be made again.

    Attributes:
        key: values of key columns that all lost rows share; empty: everything is lost.
        rows: how many, where they were a data file's.
        steps: first and last of these.
    """

    table: str
    key: Mapping[str, object] = field(default_factory=dict)
    rows: int | None = None
    steps: tuple[int, int] | None = None

    @property
    def words(self) -> str:
        """`10 rows of run r, steps 0 to 9`, or `run r, step 3`, or `everything`."""
        if self.rows is None:
            named = ", ".join(f"{name} {value}" for name, value in self.key.items()) or "everything"
            return named + _steps_in_words(self.steps)
        run = f" of run {self.key['run']}" if "run" in self.key else ""
        return f"{self.rows} rows{run}{_steps_in_words(self.steps)}"


def rows_lost(table: str, file: DataFile) -> Lost:
    """The rows of a data file, from its partition and Delta's statistics."""
    low, high = (file.stats.get(which, {}).get("step") for which in ("minValues", "maxValues"))
    return Lost(table, file.partition, file.rows, None if low is None or high is None else (low, high))


def _steps_in_words(steps: tuple[int, int] | None) -> str:
    if steps is None:
        return ""
    low, high = steps
    return f", steps {low} to {high}" if low != high else f", step {low}"


@dataclass
class Verification:
    """What was found.

    Attributes:
        orphans: files that nothing names: left by killed writers, or of versions that can no longer be read.
        checked: files whose content was read, or whose size was looked at where only that was asked for.
        bytes: of these files.
    """

    damage: list[Finding] = field(default_factory=list)
    orphans: list[Entry] = field(default_factory=list)
    checked: int = 0
    bytes: int = 0
