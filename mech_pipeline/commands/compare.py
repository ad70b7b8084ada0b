"""`mech compare`: two runs, arms or experiments side by side."""

from typing import Annotated

import typer

from mech_pipeline.commands import completing
from mech_pipeline.commands.opening import existing_store
from mech_pipeline.commands.output import say, show
from mech_pipeline.plain_text import PlainTable

_NAME = "run, arm or experiment, for example induction.baseline.s0, induction.baseline or induction"


def compare(
    first: Annotated[str, typer.Argument(help=_NAME, autocompletion=completing.sides)],
    second: Annotated[str, typer.Argument(help="the same, to set beside it", autocompletion=completing.sides)],
) -> None:
    """Set two runs, arms or experiments side by side: what differs in their specs, when they formed, where they ended."""
    from mech_pipeline.reports.comparison import compared, spec_differences
    from mech_pipeline.store.reading.shared import reading

    with reading(existing_store().root, ["runs", "formation", "mechanism_values"]) as connection:
        sides = [compared(connection, name) for name in (first, second)]
    for name, side in zip((first, second), sides, strict=True):
        say(f"{name}: {len(side.runs)} run{'s' if len(side.runs) > 1 else ''} ({', '.join(side.runs)})")
    shown = PlainTable("spec", first, second)
    for field, values in spec_differences(*(side.spec for side in sides)).items():
        shown.add_row(field, *map(str, values))
    if shown.row_count:
        show(shown)
    _show("formed at (updates)", [side.formed for side in sides], first, second)
    _show("value at the last checkpoint", [side.values for side in sides], first, second)


def _show(title: str, sides: list[dict[str, str]], *names: str) -> None:
    """A row for each name that one of the sides has."""
    rows = list(dict.fromkeys(name for side in sides for name in side))
    if not rows:
        return
    shown = PlainTable(title, *names)
    for row in rows:
        shown.add_row(row, *(side.get(row, "not measured") for side in sides))
    show(shown)
