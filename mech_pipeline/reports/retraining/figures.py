"""Predicted against measured: what influence says removals do, and what they did when the run was trained again."""

import duckdb
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mech_pipeline.attribution.retraining.effects import lds_measures, removal_effects
from mech_pipeline.attribution.retraining.removals import asked_removals
from mech_pipeline.reports.drawing import MUTED, PALETTE, finish_axes, headline, legend_beside, line_look, new_figure
from mech_pipeline.reports.wording import interval, signal_unit
from mech_pipeline.spec.run import RunSpec


def draw_predictions(connection: duckdb.DuckDBPyConnection, spec: RunSpec, step: int) -> dict[str, Figure]:
    """One figure per mechanism and estimator of a run that has random removals at a target step, by file name."""
    asked = asked_removals(spec.influence)
    names = [removal.name for removal in asked if removal.number is not None]
    scores = lds_measures(connection, spec.run, step).filter(metric="lds")
    drawn: dict[str, Figure] = {}
    for mechanism in spec.influence.mechanisms:
        for method in spec.influence.methods:
            effects = removal_effects(connection, spec.run, step, mechanism, method, names).drop_nulls("change")
            if effects.is_empty():
                continue
            here = scores.filter(mechanism=mechanism, method=method)
            title = f"{mechanism} at step {step:,}, run {spec.run}, {method}"
            chosen = [removal.name for removal in asked if removal.target == (mechanism, method)]
            others = removal_effects(connection, spec.run, step, mechanism, method, chosen).drop_nulls("change")
            figure = predicted_against_measured(effects, others, here, signal_unit(mechanism), title)
            drawn[figure_name(mechanism, method)] = figure
    return drawn


def figure_name(mechanism: str, method: str) -> str:
    """File name of the figure of an estimator on a mechanism."""
    return f"predicted_against_measured.{mechanism}.{method}.png"


def predicted_against_measured(
    effects: pl.DataFrame, chosen: pl.DataFrame, scores: pl.DataFrame, unit: str, title: str
) -> Figure:
    """One dot per random removal, colour by share left out; on the dashed line prediction and measurement are equal.

    Args:
        effects: `effects.removal_effects` of random removals.
        chosen: of removals by influence, and of those matched to them; may be empty.
        scores: rows `lds` of `effects.lds_measures`, for the legend.
        unit: of the mechanism.
        title: which run, mechanism, step and estimator.
    """
    figure = new_figure(width_inches=7.5, height_inches=4.2)
    axes = figure.add_subplot()
    for place, ((fraction,), dots) in enumerate(effects.sort("fraction").group_by(["fraction"], maintain_order=True)):
        label = f"{100 * float(str(fraction)):g} % left out, n = {dots.height}"
        for row in scores.filter(fraction=fraction).iter_rows(named=True):
            label += f"\nLDS {interval(row['value'], row['lower'], row['upper'])}"
        axes.scatter(
            dots["predicted"], dots["change"], s=16, alpha=0.75, linewidths=0, color=line_look(place)[0], label=label
        )
    for row in chosen.iter_rows(named=True):
        matched = row["removal"].startswith("matched-")
        what = "random, kinds of the top" if matched else "most influence"
        axes.scatter(
            *([row["predicted"]], [row["change"]]),
            s=60,
            color=PALETTE[0],
            facecolors="none" if matched else PALETTE[0],
            marker="D" if matched else "*",
            label=f"{100 * row['fraction']:g} % left out: {what}",
        )
    _equal_line(axes, pl.concat([effects, chosen]))
    finish_axes(axes, f"predicted by influence ({unit})", f"measured by retraining ({unit})", title)
    legend_beside(axes)
    headline(
        figure, f"Predicted and measured change without some examples: n = {effects.height + chosen.height} retrainings"
    )
    return figure


def _equal_line(axes: Axes, effects: pl.DataFrame) -> None:
    """y = x over the range of the predictions."""
    predicted = effects["predicted"].to_numpy()
    ends = [float(predicted.min()), float(predicted.max())]
    axes.plot(ends, ends, color=MUTED, linestyle="--", linewidth=1.0, label="predicted = measured")
