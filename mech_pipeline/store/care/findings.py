"""What a verification found, in words.

corrupt     the content is not what was written, or does not fit its table's description
missing     something names a file that is not there
unrecorded  a data file without checksum (its writer was killed between commit and record); its content reads well
"""

from dataclasses import dataclass, field

from mech_pipeline.store.delta import DataFile
from mech_pipeline.store.files.interface import Entry


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        kind: corrupt, missing or unrecorded.
        name: the file, or the table, under the root.
        role: data, log, older, checksum, blob, keys, report, warehouse or mark.
        table: none of a blob whose row is lost.
        file: the data file concerned, with its partition and statistics.
    """

    kind: str
    name: str
    problem: str
    role: str
    table: str = ""
    file: DataFile | None = None


@dataclass
class Verification:
    """What was found.

    Attributes:
        orphans: files that nothing names: left by killed writers, or of versions that can no longer be read.
        checked: files whose content was read.
        bytes: of these files.
    """

    damage: list[Finding] = field(default_factory=list)
    orphans: list[Entry] = field(default_factory=list)
    checked: int = 0
    bytes: int = 0


def rows_of(file: DataFile) -> str:
    """The rows of a file in words, from Delta's statistics."""
    low, high = (file.stats.get(which, {}).get("step") for which in ("minValues", "maxValues"))
    run = f" of run {file.partition['run']}" if "run" in file.partition else ""
    steps = "" if low is None else f", steps {low} to {high}" if low != high else f", step {low}"
    return f"{file.rows} rows{run}{steps}"
