"""The ledger as a picture: running sums by component and by kind of document, beside the true change."""

import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.reports.drawing import MUTED, finish_axes, headline, kind_colours, legend_beside, line_look, panels
from mech_pipeline.reports.wording import counted

_TERM_LOOK = {
    "other": (MUTED, "-"),
    "weight decay": (MUTED, ":"),
    "momentum": (MUTED, "-."),
    "replay mismatch": (MUTED, "--"),
}


def ledger_over_steps(
    by_component: pl.DataFrame, by_kind: pl.DataFrame, change: pl.DataFrame, unit: str, title: str
) -> Figure:
    """The ledger's running sums, left by component, right by kind of document. The lines sum to the black
    dashed one, the true change.

    Args:
        by_component: `queries.ledger_by_component`.
        by_kind: `queries.ledger_by_kind`.
        change: `queries.ledger_change`, the true change of the mechanism.
        unit: of the mechanism.
        title: which run and mechanism.
    """
    figure, (left, right) = panels(2, columns=2)
    for place, (group, line) in enumerate(_from_top(by_component)):
        colour, style = _TERM_LOOK.get(group, line_look(place))
        left.plot(line["step"], line["value"], color=colour, linestyle=style, linewidth=1.2, label=group)
    colours = kind_colours(by_kind["group"].unique().to_list(), _TERM_LOOK)
    for group, line in _from_top(by_kind):
        colour, style = _TERM_LOOK.get(group, (colours.get(group, MUTED), "-"))
        right.plot(line["step"], line["value"], color=colour, linestyle=style, linewidth=1.2, label=group)
    for axes, what in ((left, "by component of the model"), (right, "by kind of document")):
        axes.plot(change["step"], change["value"], color="black", linestyle="--", linewidth=1.4, label="true change")
        finish_axes(axes, "training step (updates)", f"contribution so far ({unit})", what)
        legend_beside(axes)
    headline(figure, f"Ledger, what happened: {title}, {counted(max(change.height - 1, 0), 'interval')}")
    return figure


def _from_top(lines: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """The lines by group, in the order in which they end, so that a legend reads like the panel."""
    last = lines.filter(pl.col("step") == pl.col("step").max()).sort("value", descending=True)
    return [(group, lines.filter(group=group).sort("step")) for group in last["group"]]
