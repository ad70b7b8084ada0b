"""What is made of the rest and can be made again: report pages, which are copies of blobs, and `warehouse.duckdb`."""

from mech_pipeline.store import checksums
from mech_pipeline.store.care.inspection import Inspection


def verify_generated(look: Inspection) -> None:
    """Checks them; after `verify_blobs`, which says what blobs there are."""
    records = checksums.read_records(look.files, "warehouse")
    look.known.update(records.names)
    for name, wrong in look.contents([n for n in records.files if n in look.listing], records.files):
        if wrong:
            look.damage("corrupt", name, wrong, "warehouse")
    pages = [n for n in look.listing if n.startswith("reports/") and n.endswith(".html")]
    look.known.update(pages)
    copies = {n.split("/")[2]: n for n in look.known if n.startswith("blobs/reports/") and n.endswith("/report.html")}
    for name in pages:
        blob = copies.get(name.removeprefix("reports/").removesuffix(".html"))
        if blob in look.listing and not look.quick and look.files.read(name) != look.files.read(str(blob)):
            look.damage("corrupt", name, f"differs from {blob}", "report")
