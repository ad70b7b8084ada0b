"""Clusters of a run as a picture: their curves, and where their tokens lie."""

import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.reports.drawing import MUTED, finish_axes, headline, legend_inside, line_look, panels

_DRAWN = 6


def clusters_of(run: str, curves: pl.DataFrame, places: pl.DataFrame) -> Figure:
    """Two panels: mean loss of the first clusters and of all tokens; what each token gained by looking and otherwise.

    Args:
        curves, places: `queries.cluster_curves`, `queries.token_map`.
    """
    figure, axes = panels(2, columns=2, row_inches=2.9)
    everything = curves.filter(pl.col("cluster").is_null())
    axes[0].plot(everything["step"], everything["loss"], color=MUTED, linestyle="--", label="all probe tokens")
    axes[1].scatter(places["otherwise"], places["looking"], s=5, color=MUTED, alpha=0.4)
    for cluster in curves["cluster"].drop_nulls().unique().sort().to_list()[:_DRAWN]:
        colour, style = line_look(cluster)
        line, inside = curves.filter(cluster=cluster), places.filter(cluster=cluster)
        axes[0].plot(line["step"], line["loss"], color=colour, linestyle=style, label=f"cluster {cluster}")
        axes[1].scatter(inside["otherwise"], inside["looking"], s=9, color=colour)
    finish_axes(axes[0], "step (updates)", "mean loss (nats)", "Loss of the tokens of a cluster")
    finish_axes(axes[1], "gained otherwise (nats)", "gained by looking (nats)", "Map of the probe tokens")
    legend_inside(axes[0])  # colours mean the same beside it, and a place among that many points is long looked for
    headline(figure, f"Discoveries: n = {len(places)} probe tokens, {run}")
    return figure
