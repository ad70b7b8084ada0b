"""Every file of the store against what was written: sizes, SHA-256, rows against descriptions, index rows against blobs.

What is read: every data file, log file and blob, once. What a finding means: `findings`.
"""

from mech_pipeline.progress import Emit, Progress
from mech_pipeline.store import checksums
from mech_pipeline.store.care.findings import Verification
from mech_pipeline.store.care.inspection import Inspection
from mech_pipeline.store.care.references import named_blobs
from mech_pipeline.store.care.verify_blobs import verify_blobs
from mech_pipeline.store.care.verify_generated import verify_generated
from mech_pipeline.store.care.verify_tables import newest_version, verify_keys, verify_tables
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.layout import check_mark
from mech_pipeline.store.tables.all import TABLES


def verify_store(files: Files, *, quick: bool = False, emit: Emit = lambda line: None) -> Verification:
    """Checks the whole store.

    Args:
        quick: existence and sizes only.
        emit: receives progress lines.
    """
    # Records before versions before files: what a running writer adds from here on is in none.
    acknowledged = {name: checksums.newest_version(files, name) for name in TABLES}
    newest = {name: newest_version(files, name) for name in TABLES}
    listing = {entry.name: entry for entry in files.entries()}
    total = max(1, round(sum(entry.bytes for entry in listing.values()) / 1e6))
    look = Inspection(files, quick, listing, Progress(emit, f"verify {files.root}", total, "MB"))
    look.known.update(("store.json", "store.layout", "warehouse.duckdb"))
    if wrong := check_mark(files):
        look.damage("missing" if "store.json" not in listing else "corrupt", "store.json", wrong, "mark")
    whole = verify_tables(look, newest, acknowledged)
    verify_keys(look, whole)
    verify_blobs(look, whole)
    verify_generated(look)
    _find_orphans(look)
    return look.found


def _find_orphans(look: Inspection) -> None:
    older = named_blobs(look.files, look.listing)
    for name, entry in look.listing.items():
        if name not in look.known and name not in older and not name.startswith(("locks/", "quarantine/")):
            look.found.orphans.append(entry)
