"""Wang et al.'s criteria of a circuit as a picture: does it break as the model does, and what does each edge add?"""

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mech_pipeline.reports.drawing import FONT_POINTS, MUTED, PALETTE, finish_axes, headline, legend_inside, panels

_MOST = 24


def circuit_criteria(trials: pl.DataFrame, title: str) -> Figure:
    """Left: circuit against model, without the same edges; right: what every edge adds where it adds most.

    Args:
        trials: `queries.criteria` of one checkpoint.
    """
    figure, (left, right) = panels(2, columns=2, row_inches=3.2)
    _completeness(left, trials.filter(criterion="completeness"))
    _minimality(right, trials.filter(criterion="minimality"))
    headline(figure, title)
    return figure


def _completeness(axes: Axes, trials: pl.DataFrame) -> None:
    for several, label, colour in (
        (False, "one edge removed", PALETTE[0]),
        (True, "random halves removed", PALETTE[1]),
    ):
        some = trials.filter(pl.col("removed").str.contains(", ") == several)
        axes.scatter(some["reference"], some["faithfulness"], s=16, color=colour, label=label, zorder=3)
    ends = [*trials["reference"], *trials["faithfulness"], 0.0, 1.0]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=MUTED, linewidth=0.8, linestyle="--")
    title = "Completeness: on the line the circuit breaks as the model does"
    finish_axes(axes, "model without them (faithfulness)", "circuit without them (faithfulness)", title)
    legend_inside(axes)


def _minimality(axes: Axes, trials: pl.DataFrame) -> None:
    most = trials.sort("difference", descending=True).head(_MOST)
    place = range(len(most))
    axes.barh(place, most["difference"], color=PALETTE[0], height=0.7)
    axes.set_yticks(place, most["edge"].to_list())
    axes.invert_yaxis()
    more = f", the first {_MOST} of {len(trials)}" if len(trials) > _MOST else ""
    finish_axes(axes, "change of faithfulness without it (share)", "", f"Minimality: what each edge adds{more}")
    axes.tick_params(axis="y", labelsize=FONT_POINTS - (2 if len(most) > 12 else 1))
