"""After `verify`: damaged files are moved to `quarantine/` and taken out of their tables, whole blobs whose index rows
were lost are registered again, and what must be computed again is named. Nothing is deleted.

What is taken out is then missing for the pipeline: `mech run` finds it not current and makes it again, nothing else.
"""

from collections.abc import Mapping

from mech_pipeline.progress import Emit
from mech_pipeline.store.care.findings import Finding, Verification
from mech_pipeline.store.care.repair_blobs import register_whole_blobs, repair_blobs
from mech_pipeline.store.care.repair_generated import repair_generated
from mech_pipeline.store.care.repair_tables import record_checksums, remove_repeated, repair_data, repair_logs
from mech_pipeline.store.care.repairing import Repair, Repairing
from mech_pipeline.store.care.rollback import roll_back, take_out_lost_cells
from mech_pipeline.store.files.interface import Files
from mech_pipeline.store.layout import check_mark, mark
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES


def repair_store(
    files: Files,
    found: Verification,
    emit: Emit = lambda line: None,
    makers: Mapping[str, str] | None = None,
) -> Repair:
    """Repairs what `verify_store` found.

    Args:
        makers: the asset that fills each table, to say what must be made again.
        emit: receives lines about tables that cannot be opened.
    """
    marked = check_mark(files) is None
    if not marked:
        mark(files)
    work, damage = Repairing(Store(files.root), emit), found.damage
    work.done.lines += [] if marked else ["wrote store.json again"]
    work.done.makers = makers or {}
    written = roll_back(work, _of_role(damage, "log"))
    repair_logs(work, [f for f in _of_role(damage, "log") if files.info(f.name) or f.table not in written])
    of_data = _of_role(damage, "data")
    unrecorded = [f for f in of_data if f.kind == "unrecorded"]
    repair_data(work, [f for f in of_data if f.kind != "unrecorded" and f.table not in work.shrunk])
    for name, lost in written.items():
        take_out_lost_cells(work, name, lost)
    for finding in [*_of_role(damage, "older"), *_of_role(damage, "checksum")]:
        work.quarantine(finding.name)
    for finding in _of_role(damage, "keys"):
        remove_repeated(work, TABLES[finding.table])
    repair_blobs(work, _of_role(damage, "blob"), {f.table for f in _of_role(damage, "data", "log", "keys")})
    register_whole_blobs(work)
    work.forget_cells()
    record_checksums(work, [f.table for f in [*unrecorded, *_of_role(damage, "checksum")]])
    repair_generated(work, _of_role(damage, "report"), _of_role(damage, "warehouse"))
    return work.done


def _of_role(damage: list[Finding], *roles: str) -> list[Finding]:
    return [finding for finding in damage if finding.role in roles]
