"""From an older layout to the current one, in place; a killed migration is run again and continues.

1 → 2: the checksums of all files are taken as they are now (nothing older can tell whether they are whole), and the mark
is written last. Rows and blobs stay as they are.
"""

from mech_pipeline.progress import Emit, Progress
from mech_pipeline.store import checksums, delta
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.layout import LAYOUT, OLD_MARK, layout_of, mark
from mech_pipeline.store.tables.all import TABLES


def migrate_store(files: Files, emit: Emit = lambda line: None) -> list[str]:
    """Brings a store to the current layout; returns what was done.

    Raises:
        MechError: a table was written by a newer program, or cannot be opened.
    """
    found = layout_of(files)
    if found == LAYOUT:
        return [f"store {files.root} has layout {LAYOUT} already"]
    names = [name for name in TABLES if delta.latest_version(files, name) >= 0]
    newest = {name: delta.table_version(files, name, delta.latest_version(files, name)) for name in names}
    for name in names:
        delta.check_columns(TABLES[name], newest[name].schema)
    report = Progress(emit, f"migrate {files.root}", len(names), "tables")
    for count, name in enumerate(names, start=1):
        logs = [f"{delta.folder(name)}/_delta_log/{short}" for short in files.names(f"{delta.folder(name)}/_delta_log")]
        wanted = [*logs, *(file.name for file in newest[name].files)]
        files.seal([file.name for file in newest[name].files])
        sums = {file: checksums.checksum(files.read(file)) for file in wanted}
        checksums.record(files, name, newest[name].version, sums, kind=".migrated")
        report(count)
    mark(files)
    files.remove([OLD_MARK])
    return [f"store {files.root}: layout {found} → {LAYOUT}, checksums of {len(names)} tables taken"]
