"""Blobs: rows of damaged ones are taken out, and whole ones whose rows were lost are registered again."""

from mech_pipeline.store import delta
from mech_pipeline.store.care.findings import Finding, Lost
from mech_pipeline.store.care.registration import register_again
from mech_pipeline.store.care.repairing import Repairing
from mech_pipeline.store.reading.connection import quoted
from mech_pipeline.store.tables.all import TABLES


def repair_blobs(work: Repairing, findings: list[Finding], damaged: set[str]) -> None:
    """Takes out rows whose blobs are damaged or gone.

    Args:
        damaged: tables that have lost more than such rows: whole blobs of theirs are looked for afterwards.
    """
    for finding in findings:
        if not finding.table or delta.latest_version(work.files, finding.table) < 0:
            work.quarantine(finding.name)  # its row is lost, or of an older version
            continue
        table = TABLES[finding.table]
        keys = [key for key in table.keys if key not in ("component",)]
        with work.store.reading(table.name) as connection:
            sql = f"select distinct {', '.join(keys)} from {table.name} where uri = ?"
            rows = connection.execute(sql, [finding.name]).fetchall()
        work.quarantine(finding.name)
        work.store.delete(table.name, f"uri = {quoted(finding.name)}")
        for row in rows:
            work.lose(Lost(table.name, dict(zip(keys, row, strict=True))))
    work.shrunk -= {finding.table for finding in findings} - damaged


def register_whole_blobs(work: Repairing) -> None:
    """Whole blobs whose rows were lost with a data file or a table get rows again."""
    for name in sorted(work.shrunk):
        if TABLES[name].has_blobs and (count := register_again(work.store, TABLES[name])):
            work.done.lines.append(f"registered {count} whole files of {name} again: these need not be made again")
