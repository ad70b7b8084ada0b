"""What was done to the data, and what came of it, as pictures: every seed is drawn, axes have units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mech_pipeline.causal.arms import Doses
from mech_pipeline.causal.comparing import LEVEL
from mech_pipeline.causal.dose import response
from mech_pipeline.causal.paired import paired_differences
from mech_pipeline.causal.survival import Formed, share_formed
from mech_pipeline.reports.drawing import (
    MUTED,
    PALETTE,
    finish_axes,
    headline,
    legend_beside,
    line_look,
    new_figure,
    panels,
)

Runs = Mapping[str, Sequence[Formed]]
_INK = "#222222"
NO_EFFECT = 0.05
"""Share of the reference's step below which a shift is drawn as none."""


@dataclass(frozen=True)
class Group:
    """Arms that one panel shows beside the arm that they are held against."""

    title: str
    reference: str
    arms: tuple[str, ...]


def when_formed(runs: Runs, groups: Sequence[Group], threshold: str) -> Figure:
    """Share of runs that have formed, a panel for each group of arms; ticks where runs end that never formed."""
    figure, all_axes = panels(len(groups), columns=1, row_inches=2.7, width_inches=9.0)
    everything = [run for arm in runs for run in runs[arm]]
    last = max((run.lower if run.upper is None else run.upper for run in everything), default=1)
    first = min((run.upper for run in everything if run.upper is not None), default=0)
    width = max(1, last - first)
    for axes, group in zip(all_axes, groups, strict=True):
        shown = [(group.reference, _INK, "-"), *((arm, *line_look(i)) for i, arm in enumerate(group.arms))]
        for arm, colour, style in shown:
            if runs[arm]:
                _stair(axes, arm, runs[arm], colour, style, last)
        axes.set_ylim(-0.03, 1.06)
        axes.set_xlim(first - 0.06 * width, last + 0.02 * width)
        finish_axes(axes, "training step (updates)", "share of runs that have formed", group.title)
        legend_beside(axes)
    headline(figure, f"When did it form? {threshold}; {sum(len(each) for each in runs.values())} runs")
    return figure


def _stair(axes: Axes, arm: str, runs: Sequence[Formed], colour: str, style: str, last: int) -> None:
    steps, shares = share_formed(runs)
    count = sum(run.upper is not None for run in runs)
    x, y = [0.0, *steps.tolist(), float(last)], [0.0, *shares.tolist(), float(shares[-1])]
    label = f"{arm} ({count} of {len(runs)})"
    axes.step(x, y, where="post", color=colour, linestyle=style, linewidth=1.4, label=label)
    if censored := [run.lower for run in runs if run.upper is None]:
        axes.plot(censored, [shares[-1]] * len(censored), color=colour, marker="|", linestyle="", markersize=9)


def shifts(compared: pl.DataFrame, runs: Runs, title: str) -> Figure:
    """A row for each comparison: every seed a dot (open: a bound), the shift with its interval, p after Holm.

    Args:
        compared: rows of `comparisons` with pairs, in the order in which they are drawn.
    """
    figure = new_figure(9.0, 1.3 + 0.36 * compared.height)
    axes = figure.add_subplot()
    reference = compared["reference_step"].drop_nulls().median()
    if isinstance(reference, float):
        axes.axvspan(-NO_EFFECT * reference, NO_EFFECT * reference, color="#eeeeee")
    axes.axvline(0.0, color=MUTED, linewidth=1.0)
    for place, row in enumerate(compared.iter_rows(named=True)):
        _shift_row(axes, compared.height - 1 - place, row, runs)
    axes.set_yticks(range(compared.height - 1, -1, -1), [f"{r['arm']} − {r['reference']}" for r in compared.to_dicts()])
    axes.set_ylim(-0.7, compared.height - 0.3)
    finish_axes(axes, "shift of the formation step (updates; right: later)", "", f"{title}; p after Holm")
    headline(figure, "By how much does it shift? A dot for each seed, the Hodges–Lehmann shift with its 95 % interval")
    return figure


def _shift_row(axes: Axes, y: int, row: Mapping[str, Any], runs: Runs) -> None:
    arm, reference = runs[row["arm"]], runs[row["reference"]]
    d = paired_differences(arm, reference)
    shift, lower, upper, p = (row[name] for name in ("shift", "lower", "upper", "p_holm"))
    claimed = p < LEVEL
    colour = PALETTE[1 if shift > 0 else 0] if claimed else MUTED
    axes.plot(d, [y + 0.16] * len(d), color=colour, marker="o", linestyle="", markersize=3, alpha=0.55)
    if lower is not None and upper is not None:
        axes.plot([lower, upper], [y, y], color=colour, linewidth=2.0)
    axes.plot([shift], [y], color=colour, marker="D", markersize=5)
    bounds = f", {row['bounds']} bounds" if row["bounds"] else ""
    axes.annotate(
        f"p = {p:.2g}{bounds}",
        (1.01, y),
        xycoords=("axes fraction", "data"),
        fontsize=7,
        color=colour if claimed else MUTED,
        verticalalignment="center",
    )


def dose_response(families: Sequence[Doses], runs: Runs, words: Sequence[str]) -> Figure:
    """When each seed formed by the share of examples that was treated, a panel for each treatment.

    Args:
        words: of each, what the trend test says.
    """
    figure, all_axes = panels(len(families), columns=2, row_inches=3.2, width_inches=9.0)
    for axes, family, said in zip(all_axes, families, words, strict=True):
        _doses(axes, family, runs)
        shares = max(family.shares) < 1
        finish_axes(axes, "share of examples (%)" if shares else "examples", "formation step (updates)", said)
    headline(figure, "Dose and response: a line for each seed; open: not formed by then")
    return figure


def _doses(axes: Axes, family: Doses, runs: Runs) -> None:
    steps = response([runs[arm] for arm in family.arms])
    last = max((run.lower for arm in family.arms for run in runs[arm] if run.upper is None), default=0)
    x = [100 * share if max(family.shares) < 1 else share for share in family.shares]
    for row in steps:
        drawn = [last if step == float("inf") else step for step in row]
        axes.plot(x, drawn, color=PALETTE[0], linewidth=1.0, alpha=0.6, marker="o", markersize=3)
        for at, value, step in zip(x, drawn, row, strict=True):
            if step == float("inf"):
                axes.plot([at], [value], color=PALETTE[0], marker="o", markersize=5, markerfacecolor="white")


def predicted_against_measured(predicted: pl.DataFrame, order: Sequence[str], unit: str, said: str) -> Figure:
    """Two panels over the predicted change: the change that came, and the shift of formation; colours are arms."""
    figure, (left, right) = panels(2, columns=2, row_inches=3.9, width_inches=9.0)
    there = [arm for arm in order if arm in set(predicted["arm"])]
    for axes, column in ((left, "measured"), (right, "shift")):
        for place, arm in enumerate(there):
            rows = predicted.filter(arm=arm).drop_nulls(column)
            colour, marker = line_look(place)[0], "osD^v"[place // len(PALETTE) % 5]
            axes.plot(
                *(rows["predicted"], rows[column]),
                color=colour,
                marker=marker,
                linestyle="",
                markersize=4,
                alpha=0.75,
                label=f"{arm} (n = {rows.height})",
            )
        axes.axhline(0.0, color=MUTED, linewidth=0.6)
        axes.axvline(0.0, color=MUTED, linewidth=0.6)
    measured = predicted["measured"].to_numpy()
    low, high = float(measured.min()), float(measured.max())
    left.plot([low, high], [low, high], color=MUTED, linestyle="--", linewidth=1.0)
    finish_axes(left, f"predicted by influence ({unit})", f"measured at the baseline's target ({unit})", said)
    finish_axes(right, f"predicted by influence ({unit})", "shift of formation (updates; up: later)", "")
    legend_beside(right)
    headline(figure, f"Predicted and measured, n = {predicted.height} runs; dashed: predicted = measured")
    return figure
