"""Neurons over windows of training as a picture: how many tokens made them, and what they matter for."""

import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.reports.drawing import PALETTE, finish_axes, headline, legend_inside, panels


def neurons_over_windows(found: pl.DataFrame) -> Figure:
    """Two panels: how many tokens made the in-weights (median, quartiles), and what they matter for.

    Args:
        found: `queries.neuron_windows`.
    """
    figure, axes = panels(2, columns=2, row_inches=2.9)
    runs = found["run"].unique(maintain_order=True).to_list()
    for place, run in enumerate(runs):
        line, colour = found.filter(run=run, part="in").sort("step"), PALETTE[place % len(PALETTE)]
        axes[0].plot(line["step"], line["middle"], color=colour, marker="o", markersize=3, label=run)
        axes[0].fill_between(line["step"], line["low"], line["high"], color=colour, alpha=0.2, linewidth=0)
        axes[0].plot(line["step"], line["least"], color=colour, linewidth=0.8, linestyle=":")
        axes[1].plot(
            line["step"], line["attributed"], color=colour, marker="o", markersize=3, label=f"{run}: attributed"
        )
        axes[1].plot(line["step"], line["matched"], color=colour, linestyle="--", label=f"{run}: matched")
    axes[0].set_yscale("log")
    finish_axes(
        axes[0], "end of the window (updates)", "effective tokens", "What moved in-weights: median, quartiles, least"
    )
    finish_axes(
        axes[1],
        "end of the window (updates)",
        "loss increase (nats a position)",
        "Neuron at its mean: its tokens, others",
    )
    for each in axes:
        legend_inside(each)
    n = int(found["n_neurons"].max() or 0)  # type: ignore[arg-type]
    headline(figure, f"Neurons: n = {n} a run, {', '.join(runs)}")
    return figure
