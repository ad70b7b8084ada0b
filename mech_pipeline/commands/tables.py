"""`mech tables` and `mech history`: what the store holds, and since when."""

from typing import Annotated

import typer

from mech_pipeline.commands import completing
from mech_pipeline.commands.opening import existing_store
from mech_pipeline.commands.output import show
from mech_pipeline.errors import unknown
from mech_pipeline.plain_text import PlainTable


def tables(
    name: Annotated[
        str | None, typer.Argument(help="one table; default: all", autocompletion=completing.tables)
    ] = None,
) -> None:
    """List tables, or the columns of one, with units and meanings."""
    from mech_pipeline.store.tables.all import SNAPSHOT, SNAPSHOT_COLUMNS, SNAPSHOT_MEANING, TABLES
    from mech_pipeline.store.tables.views import VIEWS

    if name is None:
        shown = PlainTable("table", "a row is", "columns")
        for table in TABLES.values():
            shown.add_row(table.name, table.meaning, ", ".join(column.name for column in table.columns))
        for view in VIEWS.values():
            shown.add_row(f"{view.name} (view)", view.meaning, ", ".join(column.name for column in view.columns))
        shown.add_row(SNAPSHOT, SNAPSHOT_MEANING, SNAPSHOT_COLUMNS)
    elif name in TABLES or name in VIEWS:
        described = VIEWS.get(name) or TABLES[name]
        shown = PlainTable("column", "type", "unit", "meaning", title=described.meaning)
        for column in described.shown_columns:
            kind = f"{column.type}, may be empty" if column.nullable else column.type
            shown.add_row(column.name, kind, column.unit, column.meaning)
    else:
        raise unknown("table", name, [*TABLES, *VIEWS, SNAPSHOT])
    show(shown)


def history(
    table: Annotated[str, typer.Argument(help="a table, for example ledger", autocompletion=completing.tables)],
    limit: Annotated[int, typer.Option(help="newest versions to show", min=1)] = 20,
) -> None:
    """List the versions of a table: when, what, by which Dagster run, code and git commit.

    Read one again with `mech sql --version TABLE=N …`, until `mech maintain` removes its files.
    """
    from mech_pipeline.store.reading.history import table_history

    shown = PlainTable("version", "committed", "operation", "rows", "code", "git", "Dagster run", "content", "readable")
    for row in table_history(existing_store(), table, limit):
        shown.add_row(
            str(row.version),
            f"{row.committed:%Y-%m-%dT%H:%M:%SZ}",
            row.operation,
            "" if row.rows is None else str(row.rows),
            row.code_version,
            row.git_commit[:8],
            row.dagster_run[:8],
            row.content[:8],
            "yes" if row.readable else "no",
        )
    show(shown)
