"""Circuits as pictures: faithfulness against edges kept, areas and drift over training, and the graph at some steps."""

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, StrMethodFormatter

from mech_pipeline.reports.drawing import FONT_POINTS, MUTED, PALETTE, finish_axes, headline, legend_inside, panels
from mech_pipeline.reports.wording import counted

ATTRIBUTED = "attributed"
_SHOWN = 6
_INPUTS = {"q": PALETTE[0], "k": PALETTE[1], "v": PALETTE[2], "": MUTED}


def circuits_over_steps(curves: pl.DataFrame, areas: pl.DataFrame, drift: pl.DataFrame, title: str) -> Figure:
    """Three panels: the last checkpoint's faithfulness curves, CMD over training, and how alike circuits are.

    Args:
        curves: `queries.faithfulness_curves`.
        areas: `queries.circuit_areas` of one run and mechanism.
        drift: `queries.circuit_drift`.
    """
    figure, axes = panels(3, columns=3, row_inches=2.9)
    _faithfulness(axes[0], curves.filter(step=curves["step"].max()))
    _areas(axes[1], areas)
    _drift(axes[2], drift)
    headline(figure, title)
    return figure


def circuit_graphs(edges: pl.DataFrame, title: str) -> Figure:
    """The circuit at up to six checkpoints: input below, logits above, heads and MLPs of each layer in a row between.

    Args:
        edges: `queries.circuit_edges`.
    """
    steps = edges["step"].unique().sort().to_list()
    shown = [steps[int(place)] for place in np.unique(np.linspace(0, len(steps) - 1, _SHOWN).round())]
    figure, all_axes = panels(len(shown), columns=3, row_inches=2.7)
    largest = float(edges.filter(pl.col("in_circuit"))["score"].abs().max() or 1.0)  # type: ignore[arg-type]
    for axes, step in zip(all_axes, shown, strict=True):
        _graph(axes, edges.filter(step=step), step, largest)
    handles = [
        Line2D([], [], color=colour, label=f"into {name}")
        for name, colour in (("queries", _INPUTS["q"]), ("keys", _INPUTS["k"]), ("values", _INPUTS["v"]))
    ]
    handles.append(Line2D([], [], color=MUTED, label="into MLP or logits"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=FONT_POINTS - 1, frameon=False)
    headline(figure, title)
    return figure


def _faithfulness(axes: Axes, curves: pl.DataFrame) -> None:
    step = curves["step"][0]
    label = "random order"
    for (ordering,), line in curves.group_by(["ordering"], maintain_order=True):
        found = ordering == ATTRIBUTED
        name = "by score" if found else label
        axes.plot(
            100 * line["share"],
            line["faithfulness"],
            color=PALETTE[0] if found else MUTED,
            linewidth=1.8 if found else 0.8,
            marker="o" if found else None,
            markersize=3,
            label=name,
            zorder=3 if found else 2,
        )
        label = "_" if not found else label
    axes.axhline(1, color="#000000", linewidth=0.7, linestyle="--")
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
    finish_axes(axes, "edges kept (%)", "faithfulness (share)", f"Step {step:,}")
    legend_inside(axes)


def _areas(axes: Axes, areas: pl.DataFrame) -> None:
    found = areas.filter(ordering=ATTRIBUTED)
    random = areas.filter(pl.col("ordering") != ATTRIBUTED).group_by("step", maintain_order=True)
    spread = random.agg(
        pl.col("cmd").mean().alias("mean"), pl.col("cmd").min().alias("low"), pl.col("cmd").max().alias("high")
    )
    axes.plot(found["step"], found["cmd"], color=PALETTE[0], marker="o", markersize=3, label="by score")
    axes.plot(spread["step"], spread["mean"], color=MUTED, label="random order (mean, range)")
    axes.fill_between(spread["step"], spread["low"], spread["high"], color=MUTED, alpha=0.25, linewidth=0)
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_major_locator(FixedLocator([0, 0.2, 0.4, 0.6, 0.8, 1, 2, 5, 10, 20, 50, 100, 1000]))
    axes.set_ylim(0, max(1.0, *areas["cmd"]))
    finish_axes(axes, "training step (updates)", "CMD = ∫ |1 − f| (share of edges)", "0: a circuit alone does it all")
    legend_inside(axes)


def _drift(axes: Axes, drift: pl.DataFrame) -> None:
    lines = (("before", "with the checkpoint before", PALETTE[1]), ("again", "another draw of prompts (null)", MUTED))
    for column, label, colour in lines:
        line = drift.drop_nulls(column)
        if line.height:
            axes.plot(line["step"], line[column], color=colour, marker="o", markersize=3, label=label)
    axes.set_ylim(0, 1.05)
    finish_axes(axes, "training step (updates)", "shared edges (share of either)", "How alike circuits are")
    legend_inside(axes)


def _graph(axes: Axes, edges: pl.DataFrame, step: int, largest: float) -> None:
    writers = edges["source"].unique().to_list()
    place = {name: _place(name, writers) for name in [*writers, "logits"]}
    kept = edges.filter(pl.col("in_circuit"))
    for source, target, score in kept.select("source", "target", "score").iter_rows():
        reader, _, kind = target.partition("<")
        (x0, y0), (x1, y1) = place[source], place[reader]
        axes.annotate(
            "",
            (x1, y1),
            (x0, y0),
            arrowprops={
                "arrowstyle": "-",
                "color": _INPUTS[kind.removesuffix(">")],
                "linewidth": 0.6 + 3.4 * abs(score) / largest,
                "linestyle": "-" if score >= 0 else ":",
                "alpha": 0.75,
                "connectionstyle": "arc3,rad=" + {"q": "0.12", "k": "-0.12"}.get(kind[:1], "0"),
                "shrinkA": 7,
                "shrinkB": 7,
            },
        )
    used = {name for pair in kept.select("source", "target").rows() for name in (pair[0], pair[1].split("<")[0])}
    for name, (x, y) in place.items():
        axes.text(
            x,
            y,
            name,
            ha="center",
            va="center",
            fontsize=FONT_POINTS - 1,
            color="#000000" if name in used else "#bbbbbb",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "#ffffff", "edgecolor": "none"},
        )
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.5, max(y for _, y in place.values()) + 0.5)
    axes.set_axis_off()
    axes.set_title(f"step {step:,}: {counted(kept.height, 'edge')}", fontsize=FONT_POINTS + 1, loc="left")


def _place(name: str, writers: list[str]) -> tuple[float, float]:
    """Where a component is drawn: rows from the input up, two for a layer with an MLP."""
    layers = max((int(w[1:].split(".")[0]) for w in writers if w != "input"), default=-1) + 1
    per_layer = 2 if any(w.startswith("m") for w in writers) else 1
    if name in ("input", "logits"):
        return 0.5, 0.0 if name == "input" else 1.0 + per_layer * layers
    layer, _, head = name[1:].partition(".h")
    row = 1.0 + per_layer * int(layer) + (name[0] == "m")
    if name[0] == "m":
        return 0.5, row
    heads = sum(w.startswith(f"a{layer}.") for w in writers)
    return (int(head) + 0.5) / heads, row
