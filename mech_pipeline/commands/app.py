"""`mech`: the command, put together from one module for each of its subjects."""

import sys
import warnings

import typer

from mech_pipeline.commands.report import report
from mech_pipeline.commands.run import run
from mech_pipeline.commands.sql import sql
from mech_pipeline.commands.status import status
from mech_pipeline.commands.store import maintain, migrate, warehouse
from mech_pipeline.commands.tables import history, tables
from mech_pipeline.commands.verify import verify
from mech_pipeline.commands.zoom import zoom
from mech_pipeline.errors import MechError

app = typer.Typer(
    help="Training process transparency: which training data made this mechanism, when, and how do we know?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (run, status, report, zoom, sql, tables, history, verify, maintain, migrate, warehouse):
    app.command()(command)


def main() -> None:
    """Entry point: errors people can act on are one line on stderr and exit code 1."""
    warnings.filterwarnings("ignore", message=".*is currently in (beta|preview)")  # Dagster says so on every import
    try:
        app(standalone_mode=True)
    except MechError as error:
        print(f"mech: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)


if __name__ == "__main__":
    main()
