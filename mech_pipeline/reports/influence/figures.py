"""Influence as pictures: when the examples that count were seen, and beside what the ledger says they did."""

import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.reports.drawing import (
    MUTED,
    PALETTE,
    finish_axes,
    headline,
    kind_colours,
    legend_beside,
    legend_inside,
    new_figure,
)


def influence_against_ledger(both: pl.DataFrame, unit: str, title: str) -> Figure:
    """One dot per example: what it did (ledger) against what leaving it out is predicted to cost (influence).

    Args:
        both: `queries.influence_against_ledger`.
        unit: of the mechanism.
        title: which run, mechanism and target step.
    """
    figure = new_figure(height_inches=4.2)
    axes = figure.add_subplot()
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.axvline(0, color=MUTED, linewidth=0.8)
    colours = kind_colours(both["kind"].unique().to_list())
    for (kind,), dots in both.sort("kind").group_by(["kind"], maintain_order=True):
        axes.scatter(
            dots["ledger"],
            dots["influence"],
            s=9,
            alpha=0.5,
            linewidths=0,
            color=colours[str(kind)],
            label=f"{kind} (n = {dots.height:,})",
        )
    finish_axes(
        axes,
        f"ledger: what happened ({unit})",
        f"influence: predicted loss\nwithout the example ({unit})",
        f"{title}: {rank_correlation(both)}",
    )
    legend_beside(axes)
    return figure


def rank_correlation(both: pl.DataFrame) -> str:
    """Spearman's rho between ledger and influence with its n; undefined below 3 examples or without spread."""
    if both.height < 3 or both["ledger"].n_unique() == 1 or both["influence"].n_unique() == 1:
        return f"Spearman ρ undefined (n = {both.height:,} examples)"
    rho = both.select(pl.corr("ledger", "influence", method="spearman")).item()  # `scipy.stats` takes a second to load
    return f"Spearman ρ = {rho:.2f} (n = {both.height:,} examples)"


def influence_over_updates(by_update: pl.DataFrame, adjoint: pl.DataFrame, unit: str, title: str) -> Figure:
    """When the examples that count were seen, and how the adjoint grows backwards from the target step.

    Args:
        by_update: `queries.influence_by_update`.
        adjoint: `queries.adjoint_norms`.
        unit: of the mechanism.
        title: which run, mechanism and target step.
    """
    figure = new_figure(height_inches=5.0)
    grid = figure.add_gridspec(2, 2)
    size, signed, norm = (figure.add_subplot(cell) for cell in (grid[0, 0], grid[0, 1], grid[1, :]))
    colours = kind_colours(by_update["kind"].unique().to_list())
    for axes, column, what in ((size, "mean_absolute", "mean |influence|"), (signed, "mean_signed", "mean influence")):
        for (kind,), line in by_update.sort("kind", "update_step").group_by(["kind"], maintain_order=True):
            label = f"{kind} (n = {line['n'].sum():,})"
            axes.plot(line["update_step"], line[column], color=colours[str(kind)], linewidth=1.3, label=label)
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
