"""Attention heads over training: lines by detector, and the atlas, where every head is a row."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from mech_pipeline.reports.drawing import (
    FONT_POINTS,
    LINE_STYLES,
    PALETTE,
    finish_axes,
    headline,
    legend_inside,
    panels,
)
from mech_pipeline.reports.wording import counted


def head_scores_over_steps(scores: pl.DataFrame, run: str, units: Mapping[str, str]) -> Figure:
    """Every head of one run over training: one panel per detector, colour and line style by layer.

    Args:
        scores: `queries.head_scores`.
        run: its id, which names the seed.
        units: unit of every detector; one panel each, in this order.
    """
    figure, all_axes = panels(len(units), columns=2, row_inches=2.3)
    layers = scores["layer"].unique().sort().to_list()
    for axes, (detector, unit) in zip(all_axes, units.items(), strict=True):
        here = scores.filter(detector=detector)
        for layer in layers:
            label = f"layer {layer}"
            for (_head,), line in here.filter(layer=layer).sort("step").group_by(["head"], maintain_order=True):
                axes.plot(
                    line["step"],
                    line["value"],
                    color=PALETTE[layer % len(PALETTE)],
                    label=label,
                    linestyle=LINE_STYLES[layer % len(LINE_STYLES)],
                    linewidth=1.2,
                    alpha=0.85,
                )
                label = "_"
        finish_axes(axes, "training step (updates)", f"score ({unit})", f"{detector}{_best_head(here)}")
    legend_inside(all_axes[0])
    n = scores.select("layer", "head").n_unique() if scores.height else 0
    headline(figure, f"Head scores: run {run}, {counted(n, 'head')}, one line each")
    return figure


def _best_head(scores: pl.DataFrame) -> str:
    if scores.is_empty():
        return ""
    last = scores.filter(pl.col("step") == pl.col("step").max()).sort("value").row(-1, named=True)
    return f": best at the end L{last['layer']}H{last['head']}, {last['value']:.2f}"


def head_atlas(scores: pl.DataFrame, run: str, units: Mapping[str, str]) -> Figure:
    """Every head × detector × step as one picture: a panel per detector, a row per head, a column per checkpoint.

    Columns are checkpoints, not equally spaced steps; ticks say which. Shares are drawn up to 1, so that
    panels compare. Where scores go below 0, blue and red are equally strong for equal sizes.

    Args:
        scores: `queries.head_scores`.
        run: its id, which names the seed.
        units: unit of every detector; one panel each, in this order.
    """
    heads = scores.select("layer", "head").unique().sort("layer", "head").rows()
    steps = scores["step"].unique().sort().to_list()
    figure, all_axes = panels(len(units), columns=2, row_inches=0.9 + 0.14 * len(heads))
    for axes, (detector, unit) in zip(all_axes, units.items(), strict=True):
        grid = np.full((len(heads), len(steps)), np.nan)
        here = scores.filter(detector=detector)
        rows = [heads.index(head) for head in here.select("layer", "head").rows()]
        grid[rows, [steps.index(step) for step in here["step"]]] = here["value"]
        most = max(float(np.nanmax(np.abs(grid))), 1e-9 if unit == "nats" else 1.0)
        signed = float(np.nanmin(grid)) < 0
        look, norm = ("RdBu_r", Normalize(-most, most)) if signed else ("Reds", Normalize(0, most))
        image = axes.imshow(grid, aspect="auto", cmap=look, norm=norm, interpolation="nearest")
        shown = np.unique(np.linspace(0, len(steps) - 1, 6).round().astype(int))
        finish_axes(axes, "checkpoint (training step, updates)", "head", detector)
        axes.grid(False)
        axes.set_xticks(shown, [f"{steps[place]:,}" for place in shown])
        axes.set_yticks(range(len(heads)), [f"L{layer}H{head}" for layer, head in heads])
        bar = figure.colorbar(image, ax=axes)
        bar.set_label(unit, fontsize=FONT_POINTS)
        bar.ax.tick_params(labelsize=FONT_POINTS - 1)
    headline(figure, f"Head atlas: run {run}, {counted(len(heads), 'head')}, {counted(len(steps), 'checkpoint')}")
    return figure
