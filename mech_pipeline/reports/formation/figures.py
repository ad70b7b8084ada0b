"""Mechanisms over training as pictures: every seed is a line, every formation step a dot."""

from collections.abc import Mapping

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mech_pipeline.reports.drawing import MUTED, finish_axes, headline, legend_inside, line_look, panels
from mech_pipeline.reports.wording import counted, signal_name


def formation_curves(
    curves: pl.DataFrame,
    events: pl.DataFrame,
    units: Mapping[str, str],
    width_inches: float = 9.0,
    columns: int = 3,
) -> Figure:
    """Each mechanism over training: one line per run, colour by arm, a dot where it formed, the threshold dashed.

    Args:
        curves: `queries.mechanism_curves`.
        events: `queries.formation_events`.
        units: unit of every mechanism; one panel each, in this order.
    """
    figure, all_axes = panels(len(units), columns=columns, width_inches=width_inches)
    arms = curves["arm"].unique(maintain_order=True).to_list()
    for axes, (mechanism, unit) in zip(all_axes, units.items(), strict=True):
        here = events.filter(pl.col("mechanism") == mechanism)
        for arm, colour in ((arm, line_look(place)[0]) for place, arm in enumerate(arms)):
            _arm_curves(axes, curves.filter(mechanism=mechanism, arm=arm), here.filter(arm=arm), arm, colour)
        for threshold in here["threshold"].unique().sort():
            axes.axhline(threshold, color=MUTED, linestyle="--", linewidth=1.0, label=f"threshold {threshold:g}")
        finish_axes(axes, "training step (updates)", f"value ({unit})", signal_name(mechanism))
        legend_inside(axes)
    headline(figure, f"Formation: {counted(curves['run'].n_unique(), 'run')}, one line each; dot = formation step")
    return figure


def _arm_curves(axes: Axes, curves: pl.DataFrame, events: pl.DataFrame, arm: str, colour: str) -> None:
    runs = curves["run"].unique(maintain_order=True).to_list()
    formed = events["step"].count()
    label = f"{arm} (n = {len(runs)}" + (f", {formed} formed)" if events.height else ")")
    for run in runs:
        line = curves.filter(run=run).sort("step")
        axes.plot(line["step"], line["value"], color=colour, linewidth=1.2, alpha=0.8, label=label)
        label = "_"
        dots = line.join(events.filter(run=run).select("step").drop_nulls(), on="step", how="semi")
        axes.plot(dots["step"], dots["value"], "o", color=colour, markeredgecolor="white", markersize=7, zorder=3)
