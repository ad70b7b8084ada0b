"""What the parts of a verification share: the files that are there, those that something names, and what was found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mech_pipeline.progress import Progress
from mech_pipeline.store.care.contents import Check, check_contents
from mech_pipeline.store.care.findings import Finding, Verification
from mech_pipeline.store.checksums import Checksum, wrong_size
from mech_pipeline.store.delta import DataFile
from mech_pipeline.store.files.interface import Entry, Files


@dataclass
class Inspection:
    """One look at a whole store.

    Attributes:
        quick: existence and sizes only.
        listing: every file, by name.
        progress: called with megabytes read.
        known: names of files that belong to the store as it is now.
        found: what the look has come to so far.
        told: the megabytes that were last said.
    """

    files: Files
    quick: bool
    listing: dict[str, Entry]
    progress: Progress
    known: set[str] = field(default_factory=set)
    found: Verification = field(default_factory=Verification)
    told: int = 0

    def damage(
        self, kind: str, name: str, wrong: str, role: str, table: str = "", file: DataFile | None = None
    ) -> None:
        """Notes a fault; see `Finding`."""
        self.found.damage.append(Finding(kind, name, wrong, role, table, file))

    def entry(self, name: str) -> Entry | None:
        """A file by its name; what the listing lacks is looked for once more, before anything is called missing."""
        if name not in self.listing and (found := self.files.info(name)) is not None:
            self.listing[name] = found
        return self.listing.get(name)

    def contents(
        self, names: Sequence[str], sums: Mapping[str, Checksum], also: Check | None = None
    ) -> Iterator[tuple[str, str | None]]:
        """`check_contents` with progress; where only sizes are asked for, nothing is read."""
        checked = self._sizes(names, sums) if self.quick else check_contents(self.files, names, sums, also)
        for name, wrong in checked:
            self.found.checked += 1
            self.found.bytes += self.listing[name].bytes
            read = min(round(self.found.bytes / 1e6), self.progress.total)
            if read > self.told:  # small files would say the same number again
                self.told = read
                self.progress(read)
            yield name, wrong

    def _sizes(self, names: Sequence[str], sums: Mapping[str, Checksum]) -> Iterator[tuple[str, str | None]]:
        for name in names:
            yield name, wrong_size(self.listing[name].bytes, sums.get(name))
