"""docs/tables.md: the descriptions in `tables.py` as Markdown, so that they are written once.

To write the file again after a change:
python -c "from mech_pipeline.store.tables.documentation import tables_markdown; print(tables_markdown(), end='')" > docs/tables.md
"""

from collections.abc import Iterable

from mech_pipeline.store.tables.all import SNAPSHOT, SNAPSHOT_COLUMNS, SNAPSHOT_MEANING, TABLES, Column, Table
from mech_pipeline.store.tables.views import VIEWS, View

_INTRODUCTION = """\
# Tables

Made from `mech_pipeline/store/tables/all.py` by `mech_pipeline/store/tables/documentation.py`; a test compares the two.

Every table is a Delta Lake table under `tables/<name>` and a view of the same name in `mech sql` and `warehouse.duckdb`.
A column without a unit has none. Only columns marked "may be empty" hold nulls; numbers are always finite.
`offset` is also a word of SQL: write `"offset"` in double quotes.
"""


def tables_markdown() -> str:
    """All tables in the order of `TABLES`: what a row is, its keys, and every column with type, unit and meaning."""
    index = "\n".join(f"- [{name}](#{name}): {_text(table.meaning)}" for name, table in TABLES.items())
    sections = "\n".join(_section(table) for table in TABLES.values())
    view = f"The view `{SNAPSHOT}` has {SNAPSHOT_MEANING}. Its columns: {SNAPSHOT_COLUMNS}.\n"
    made = "\n".join(_view(each) for each in VIEWS.values())
    return f"{_INTRODUCTION}\n{index}\n\n{view}\n{sections}\n{made}"


def _view(view: View) -> str:
    rows = table_rows(view.columns)
    tables = " and ".join(f"`{name}`" for name in view.reads)
    return (
        f"## View {view.name}\n\n{_text(view.meaning[:1].upper() + view.meaning[1:])}. Made of {tables}; nothing is stored.\n\n"
        f"| column | type | unit | meaning |\n|---|---|---|---|\n{rows}\n"
    )


def _section(table: Table) -> str:
    rows = table_rows(table.shown_columns)
    return (
        f"## {table.name}\n\n{_text(table.meaning[:1].upper() + table.meaning[1:])}.\n\n{_keys(table)}\n\n"
        f"| column | type | unit | meaning |\n|---|---|---|---|\n{rows}\n"
    )


def _keys(table: Table) -> str:
    """What names a row, what is replaced on its own, how the files are partitioned, whether provenance is kept."""
    sentences = [f"Keys: {', '.join(f'`{key}`' for key in table.keys)}."]
    if table.item is not None:
        sentences.append(f"Recomputed on its own: each `{table.item}`.")
    if table.per_run:
        sentences.append("Partitioned on disk by `run`.")
    if not table.computed:
        sentences.append("Rows are only ever added, without provenance columns.")
    return " ".join(sentences)


def table_rows(columns: Iterable[Column]) -> str:
    """Columns as rows of a Markdown table: name, type, unit, meaning."""
    return "\n".join(_row(column) for column in columns)


def _row(column: Column) -> str:
    kind = f"{column.type}, may be empty" if column.nullable and column.default is None else column.type
    return f"| `{column.name}` | {kind} | {_text(column.unit)} | {_text(column.meaning)} |"


def _text(text: str) -> str:
    """Plain text inside a Markdown table: bars would end a cell, angle brackets would be read as HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|")
