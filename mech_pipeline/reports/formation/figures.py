"""Frame in, figure out: formation, heads, ledger and influence. The frames come from the query modules.

Every seed is drawn, every axis has its unit, every title has n.
"""

from collections.abc import Mapping

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from mech_pipeline.reports.drawing import (
    MUTED,
    PALETTE,
    figure_png,
    finish_axes,
    headline,
    kind_look,
    legend_beside,
    legend_inside,
    line_look,
    new_figure,
    panels,
)
from mech_pipeline.reports.wording import counted

__all__ = [
    "figure_png",
    "formation_curves",
    "influence_against_ledger",
    "influence_over_updates",
    "ledger_over_steps",
]
_TERM_LOOK = {"other": (MUTED, "-"), "weight decay": (MUTED, ":"), "momentum": (MUTED, "-.")}


def formation_curves(curves: pl.DataFrame, events: pl.DataFrame, units: Mapping[str, str]) -> Figure:
    """Each mechanism over training: one line per run, colour by arm, a dot where it formed, the threshold dashed.

    Args:
        curves: `queries.mechanism_curves`.
        events: `queries.formation_events`.
        units: unit of every mechanism; one panel each, in this order.
    """
    figure, all_axes = panels(len(units), columns=3)
    arms = curves["arm"].unique(maintain_order=True).to_list()
    for axes, (mechanism, unit) in zip(all_axes, units.items(), strict=True):
        here = events.filter(pl.col("mechanism") == mechanism)
        for arm, colour in ((arm, line_look(place)[0]) for place, arm in enumerate(arms)):
            _arm_curves(axes, curves.filter(mechanism=mechanism, arm=arm), here.filter(arm=arm), arm, colour)
        for threshold in here["threshold"].unique().sort():
            axes.axhline(threshold, color=MUTED, linestyle="--", linewidth=1.0, label=f"threshold {threshold:g}")
        finish_axes(axes, "training step (updates)", f"value ({unit})", mechanism)
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


def ledger_over_steps(
    by_component: pl.DataFrame, by_kind: pl.DataFrame, change: pl.DataFrame, unit: str, title: str
) -> Figure:
    """The ledger's running sums, left by component, right by kind of document. The lines sum to the black
    dashed one, the true change.

    Args:
        by_component: `ledger_queries.ledger_by_component`.
        by_kind: `ledger_queries.ledger_by_kind`.
        change: `ledger_queries.ledger_change`, the true change of the mechanism.
        unit: of the mechanism.
        title: which run and mechanism.
    """
    figure, (left, right) = panels(2, columns=2)
    for place, (group, line) in enumerate(_from_top(by_component)):
        colour, style = _TERM_LOOK.get(group, line_look(place))
        left.plot(line["step"], line["value"], color=colour, linestyle=style, linewidth=1.2, label=group)
    for group, line in _from_top(by_kind):
        colour, style = _TERM_LOOK.get(group, (kind_look(group), "-"))
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


def influence_against_ledger(both: pl.DataFrame, unit: str, title: str) -> Figure:
    """One dot per example: what it did (ledger) against what weighting it more is predicted to do (influence).

    Args:
        both: `attribution_queries.influence_against_ledger`.
        unit: of the mechanism.
        title: which run, mechanism and target step.
    """
    figure = new_figure(height_inches=4.2)
    axes = figure.add_subplot()
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for (kind,), dots in both.sort("kind").group_by(["kind"], maintain_order=True):
        axes.scatter(
            dots["ledger"],
            dots["influence"],
            s=9,
            alpha=0.5,
            linewidths=0,
            color=kind_look(str(kind)),
            label=f"{kind} (n = {dots.height:,})",
        )
    finish_axes(
        axes,
        f"ledger: what happened ({unit})",
        f"influence: predicted change\nif weighted more ({unit} per unit weight)",
        f"{title}: {rank_correlation(both)}",
    )
    legend_beside(axes)
    return figure


def rank_correlation(both: pl.DataFrame) -> str:
    """Spearman's rho between ledger and influence with its n; undefined below 3 examples or without spread."""
    if both.height < 3 or both["ledger"].n_unique() == 1 or both["influence"].n_unique() == 1:
        return f"Spearman ρ undefined (n = {both.height:,} examples)"
    rho = float(stats.spearmanr(both["ledger"], both["influence"]).statistic)
    return f"Spearman ρ = {rho:.2f} (n = {both.height:,} examples)"


def influence_over_updates(by_update: pl.DataFrame, adjoint: pl.DataFrame, unit: str, title: str) -> Figure:
    """When the examples that count were seen, and how the adjoint grows backwards from the target step.

    Args:
        by_update: `attribution_queries.influence_by_update`.
        adjoint: `attribution_queries.adjoint_norms`.
        unit: of the mechanism.
        title: which run, mechanism and target step.
    """
    figure = new_figure(height_inches=5.0)
    grid = figure.add_gridspec(2, 2)
    size, signed, norm = (figure.add_subplot(cell) for cell in (grid[0, 0], grid[0, 1], grid[1, :]))
    for axes, column, what in ((size, "mean_absolute", "mean |influence|"), (signed, "mean_signed", "mean influence")):
        for (kind,), line in by_update.sort("kind", "update_step").group_by(["kind"], maintain_order=True):
            label = f"{kind} (n = {line['n'].sum():,})"
            axes.plot(line["update_step"], line[column], color=kind_look(str(kind)), linewidth=1.3, label=label)
        finish_axes(axes, "when the example was seen (updates)", f"{what}\n({unit} per unit weight)", f"{what} by kind")
    signed.axhline(0, color=MUTED, linewidth=0.8)
    legend_inside(size)
    positive = adjoint.filter(pl.col("value") > 0)
    norm.plot(positive["update_step"], positive["value"], color=PALETTE[0], linewidth=1.3)
    if positive.height:
        norm.set_yscale("log")
    finish_axes(
        norm,
        "update reached, sweeping back from the target (updates)",
        f"adjoint norm\n(L2, {unit} per unit parameter)",
        "adjoint norm (an explosion towards the left would make early influence meaningless)",
    )
    headline(figure, f"Influence by update: {title}, n = {by_update['n'].sum():,} (example, update) pairs")
    return figure
