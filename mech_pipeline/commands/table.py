"""The commands of `mech`, one module for each of their subjects."""

import typer

from mech_pipeline.commands.audit import audit
from mech_pipeline.commands.bundle import bring_in, export
from mech_pipeline.commands.compare import compare
from mech_pipeline.commands.discover import discover
from mech_pipeline.commands.example import example
from mech_pipeline.commands.init import init
from mech_pipeline.commands.ls import ls
from mech_pipeline.commands.plan import plan
from mech_pipeline.commands.report import report
from mech_pipeline.commands.run import run
from mech_pipeline.commands.sql import sql
from mech_pipeline.commands.state import state
from mech_pipeline.commands.status import status
from mech_pipeline.commands.store import maintain, migrate, warehouse
from mech_pipeline.commands.tables import history, tables
from mech_pipeline.commands.ui import ui
from mech_pipeline.commands.verify import verify
from mech_pipeline.commands.zoom import zoom

app = typer.Typer(
    help="Training process transparency: which training data made this mechanism, when, and how do we know?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_ASKING = (ls, plan, status, report, compare, discover, example, sql, tables, history)
_STORE = (verify, maintain, migrate, warehouse)
_EXCHANGE = (audit, state, export)
for command in (init, run, ui, *_ASKING, zoom, *_EXCHANGE, *_STORE):
    app.command()(command)
app.command("import")(bring_in)
