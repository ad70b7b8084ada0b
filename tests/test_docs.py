"""The documentation that is made from code."""

from pathlib import Path

from mech_pipeline.store.documentation import tables_markdown

DOCS = Path(__file__).parent.parent / "docs"


def test_the_documented_tables_are_the_tables_of_the_store():
    written = (DOCS / "tables.md").read_text(encoding="utf-8")
    assert written == tables_markdown(), "write docs/tables.md again: mech_pipeline/store/documentation.py says how"
