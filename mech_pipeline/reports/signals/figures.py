"""Signals as pictures: every unseen run is drawn, and a negative run is one run, however long it was."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
from mech_pipeline.signals.courses import Course, Reading

Rows = Sequence[Mapping[str, Any]]


def roc(scores: Rows, alarms: pl.DataFrame) -> Figure:
    """Candidates and baselines in a panel each: share of events announced over the share of negative runs that ring.

    Args:
        scores: rows of `signal_scores` at the claimed rate; the dot is where the locked threshold came to lie.
        alarms: rows of `signal_alarms`.
    """
    there = {row["baseline"] for row in scores}
    kinds = [(title, kind) for title, kind in (("signals", False), ("baselines", True)) if kind in there]
    figure, all_axes = panels(len(kinds), columns=2, row_inches=3.6, width_inches=5.5 * len(kinds))
    for axes, (title, baseline) in zip(all_axes, kinds, strict=True):
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1.0)
        for place, row in enumerate(row for row in scores if row["baseline"] == baseline):
            _roc_line(axes, row, alarms.filter(signal=row["signal"]), *line_look(place))
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        finish_axes(axes, "share of negative runs that ring", "share of events announced", title)
        legend_beside(axes)
    headline(figure, "Rings before the event, and where nothing comes; dots: the locked thresholds; in brackets: AUROC")
    return figure


def _roc_line(axes: Axes, row: Mapping[str, Any], alarms: pl.DataFrame, colour: str, style: str) -> None:
    from sklearn.metrics import roc_curve

    peaks = [-math.inf if peak is None else peak for peak in alarms["peak"]]
    _, ranks = np.unique(peaks, return_inverse=True)  # a run in which it abstains is below all others
    false, true, _ = roc_curve(alarms["event"].is_not_null().to_numpy(), ranks, drop_intermediate=False)
    label = f"{row['signal']} ({row['auroc']:.2f})"
    axes.plot(false, true, color=colour, linestyle=style, linewidth=1.3, label=label)
    if row["negatives"]:
        at = row["false_alarms"] / row["negatives"], row["announced"] / row["events"]
        axes.plot(*([each] for each in at), color=colour, marker="o", markersize=5)


def leads(scores: Rows, alarms: pl.DataFrame) -> Figure:
    """A row for each signal: how long before the event it rang, every event a dot; and when it rang in negative runs."""
    figure = new_figure(10.5, 1.2 + 0.3 * len(scores))
    left, right = figure.subplots(1, 2, sharey=True)
    arms = sorted(alarms.filter(pl.col("event").is_null())["arm"].unique())
    for place, row in enumerate(scores):
        y, of = len(scores) - 1 - place, alarms.filter(pl.col("alarm").is_not_null(), signal=row["signal"])
        _lead_row(left, y, row, of.filter(pl.col("event").is_not_null()))
        rang = f"{row['false_alarms']} of {row['negatives']}"
        _aside(right, y, rang)
        for number, arm in enumerate(arms):
            steps = of.filter(pl.col("event").is_null(), arm=arm)["alarm"].to_list()
            shift = 0.18 * (number - (len(arms) - 1) / 2)
            label = arm if place == 0 else None
            look = {"color": PALETTE[(number + 1) % len(PALETTE)], "marker": "x", "linestyle": ""}
            right.plot(steps, [y + shift] * len(steps), markersize=4, label=label, **look)
    left.set_yticks(range(len(scores) - 1, -1, -1), [_named(row) for row in scores])
    left.set_ylim(-0.7, len(scores) - 0.3)
    left.set_xlim(-0.03, 1.03)
    right.set_xlim(left=0)
    finish_axes(left, "lead as a share of the event's step", "", "rings before the event: events announced")
    finish_axes(right, "step of the alarm (updates)", "", "rings where nothing comes: negative runs")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=4, fontsize=7, frameon=False)
    headline(figure, "When it rang: a dot for each event, with the median; a cross for each false alarm")
    return figure


def _lead_row(axes: Axes, y: int, row: Mapping[str, Any], announced: pl.DataFrame) -> None:
    shares = ((announced["event"] - announced["alarm"]) / announced["event"]).to_list()
    axes.plot(shares, [y] * len(shares), color=PALETTE[0], marker="o", linestyle="", markersize=4, alpha=0.45)
    if shares:
        axes.plot([row["lead_share_median"]], [y], color="#222222", marker="|", markersize=13, markeredgewidth=1.6)
    _aside(axes, y, f"{row['announced']} of {row['events']}")


def _aside(axes: Axes, y: int, text: str) -> None:
    axes.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), fontsize=7, verticalalignment="center")


def _named(row: Mapping[str, Any]) -> str:
    return row["signal"] + (" (chosen)" if row["chosen"] else "") + (" (baseline)" if row["baseline"] else "")


def chosen_courses(signal: str, courses: Mapping[str, Sequence[Course]], rule: Mapping[str, Any], unit: str) -> Figure:
    """The chosen signal in every unseen run, an arm a panel: event runs up to their event, negative runs to their end.

    Args:
        rule: `reading`, `direction` and `threshold` of its lock; drawn as it is compared with the threshold.
    """
    figure, all_axes = panels(len(courses), columns=2, row_inches=2.5, width_inches=9.0)
    reading: Reading = rule["reading"]
    for axes, (arm, some) in zip(all_axes, courses.items(), strict=True):
        for course in some:
            seen = [step for step in course.steps if course.event is None or step < course.event]
            values = course.readings(reading, rule["direction"])[: len(seen)]
            axes.plot(seen, values, color=PALETTE[1 if course.event is None else 0], linewidth=0.7, alpha=0.6)
        if rule["threshold"] is not None:
            axes.axhline(rule["threshold"], color="#222222", linestyle="--", linewidth=1.0)
        axes.set_xlim(0, max(course.steps[-1] for each in courses.values() for course in each))
        kind = "events" if any(course.event is not None for course in some) else "negatives"
        finish_axes(axes, "training step (updates)", unit, f"{arm}: {len(some)} {kind}")
    _same_heights(all_axes)
    turned = "" if rule["direction"] == 1 else "−"
    headline(figure, f"{turned}{signal}, {reading}: it rings above the dashed line; event runs end at their event")
    return figure


def _same_heights(all_axes: Sequence[Axes]) -> None:
    limits = np.array([axes.get_ylim() for axes in all_axes])
    for axes in all_axes:
        axes.set_ylim(limits[:, 0].min(), limits[:, 1].max())
