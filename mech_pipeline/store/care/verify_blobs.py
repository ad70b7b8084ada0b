"""Blobs against the rows that name them, and those that no row names against the SHA-256 in their own names."""

from collections.abc import Mapping

from mech_pipeline.store import checksums
from mech_pipeline.store.blobs import Blob, named_sha256
from mech_pipeline.store.care.contents import GONE
from mech_pipeline.store.care.inspection import Inspection
from mech_pipeline.store.checksums import Checksum
from mech_pipeline.store.delta import TableVersion
from mech_pipeline.store.reading.connection import open_views
from mech_pipeline.store.reading.snapshot import Snapshot
from mech_pipeline.store.tables.all import TABLES


def verify_blobs(look: Inspection, whole: Mapping[str, TableVersion | None]) -> None:
    """Checks all blobs.

    Args:
        whole: the newest version of each table, with only the whole files in it.
    """
    for name, found in whole.items():
        if found is not None and TABLES[name].has_blobs:
            _verify_named(look, name, found)
    _verify_unnamed(look)


def _verify_named(look: Inspection, table: str, version: TableVersion) -> None:
    with open_views(look.files, Snapshot({table: version})) as connection:
        rows = connection.execute(f"select distinct uri, bytes, sha256 from {table} order by uri").fetchall()
    blobs = {uri: Blob(uri, size, sha256) for uri, size, sha256 in rows}
    look.known.update(blobs)
    there = []
    for blob in blobs.values():
        if (entry := look.entry(blob.uri)) is None:
            look.damage("missing", blob.uri, f"table {table} names it", "blob", table)
        elif entry.bytes != blob.bytes:
            look.damage("corrupt", blob.uri, f"{entry.bytes} bytes, {blob.bytes} were written", "blob", table)
        else:
            there.append(blob.uri)
    sums = {blob.uri: Checksum(blob.bytes, blob.sha256) for blob in blobs.values()}
    for uri, wrong in look.contents(there, sums):
        if wrong:
            look.damage("corrupt", uri, wrong, "blob", table)


def _verify_unnamed(look: Inspection) -> None:
    """Blobs whose rows are lost (their data file or table is damaged) or old."""
    unnamed = [n for n in look.listing if n.startswith("blobs/") and n not in look.known and named_sha256(n)]

    def differs(name: str, content: bytes) -> str | None:
        head = str(named_sha256(name))
        found = checksums.checksum(content).sha256
        return None if found.startswith(head) else f"its SHA-256 does not begin with {head}"

    for name, wrong in look.contents(unnamed, {}, differs):
        if wrong and wrong != GONE:
            look.damage("corrupt", name, wrong, "blob")
