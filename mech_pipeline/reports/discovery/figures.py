"""Clusters of a run as a picture: their curves, and where their tokens lie."""

import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.reports.drawing import MUTED, finish_axes, headline, legend_inside, line_look, panels

_DRAWN, _IN_MAP, _UPRIGHT = 6, 24, 6


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


def needs_of(run: str, courses: pl.DataFrame) -> Figure:
    """Two panels: what the order of the context was worth to the first clusters; what two dozen lose without each part.

    Args:
        courses: `queries.courses_of`.
    """
    figure, axes = panels(2, columns=2, row_inches=3.2)
    for cluster in courses["cluster"].unique().sort().to_list()[:_DRAWN]:
        colour, style = line_look(cluster)
        line = courses.filter(cluster=cluster, measure="order")
        axes[0].plot(line["step"], line["value"], color=colour, linestyle=style, label=f"cluster {cluster}")
    last = courses.filter(~pl.col("measure").is_in(["loss", "order"]) & (pl.col("cluster") < _IN_MAP))
    last = last.filter(pl.col("step") == pl.col("step").max())
    lost = last.pivot("measure", index="cluster", values="value").sort("cluster")
    parts = sorted(lost.columns[1:])
    largest = max(float(last["value"].abs().max() or 0.0), 1e-9)  # type: ignore[arg-type]
    image = axes[1].imshow(lost.select(parts).to_numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
    axes[1].set_xticks(range(len(parts)), parts, rotation=90 if len(parts) > _UPRIGHT else 0)
    axes[1].set_yticks(range(0, lost.height, 4))
    finish_axes(
        axes[0], "step (updates)", "worth of the order (nats)", "More loss when what came before has another order"
    )
    finish_axes(axes[1], "head or MLP", "cluster", "More loss when a part writes its mean")
    axes[1].grid(visible=False)
    figure.colorbar(image, ax=axes[1], label="nats")
    legend_inside(axes[0])
    headline(figure, f"Discoveries by needs: n = {courses['cluster'].n_unique()} clusters, {run}")
    return figure
