"""The commands of `mech`, one module for each of their subjects."""

import typer

from mech_pipeline.commands.report import report
from mech_pipeline.commands.run import run
from mech_pipeline.commands.sql import sql
from mech_pipeline.commands.status import status
from mech_pipeline.commands.store import maintain, migrate, warehouse
from mech_pipeline.commands.tables import history, tables
from mech_pipeline.commands.verify import verify
from mech_pipeline.commands.zoom import zoom

app = typer.Typer(
    help="Training process transparency: which training data made this mechanism, when, and how do we know?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (run, status, report, zoom, sql, tables, history, verify, maintain, migrate, warehouse):
    app.command()(command)
