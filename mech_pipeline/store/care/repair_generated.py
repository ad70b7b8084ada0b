"""What is made of the rest: report pages and `warehouse.duckdb` are written again."""

from pathlib import Path

from mech_pipeline.store.care.findings import Finding
from mech_pipeline.store.care.repairing import Repairing
from mech_pipeline.store.reading.warehouse import write_warehouse


def repair_generated(work: Repairing, reports: list[Finding], warehouse: list[Finding]) -> None:
    """Writes damaged pages again, and the warehouse if it is damaged or tables have shrunk."""
    for finding in reports:
        experiment = Path(finding.name).stem
        with work.store.reading("reports") as connection:
            sql = "select uri from reports where experiment = ? and artifact = 'report.html'"
            rows = connection.execute(sql, [experiment]).fetchall()
        if rows:
            work.files.write(finding.name, work.files.read(rows[0][0]))
            work.done.lines.append(f"wrote {finding.name} again")
    if warehouse or (work.shrunk and work.files.info("warehouse.duckdb")):
        work.done.lines.append(f"wrote {write_warehouse(work.store.root)} again")
