"""How good are the predictions? What a report shows of removals that were really retrained.

Per mechanism the first run that has them, like influence itself. Scores and spreads belong to random removals, query
loss differences to the removal of the examples with the most positive influence.
"""

from dataclasses import dataclass

import duckdb
import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.attribution.retraining.effects import lds_measures
from mech_pipeline.frames import frame
from mech_pipeline.reports.retraining.figures import draw_predictions, figure_name
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study, Subject
from mech_pipeline.reports.wording import UNKNOWN, interval, number, plus_minus

Row = dict[str, str]


@dataclass(frozen=True)
class Picture:
    """A figure and what stands under it."""

    figure: str
    caption: str


@dataclass(frozen=True)
class PredictionPart:
    """Predictions of influence on one mechanism of one run, against retraining.

    Attributes:
        random: one row per estimator and share of random removals.
        top: one row per estimator and share of removals by influence.
    """

    subject: Subject
    random: list[Row]
    top: list[Row]
    pictures: list[Picture]


def predictions(study: Study) -> Section:
    """Predictions of removals beside what was measured, per mechanism of the first run that was retrained."""
    parts, drawn = dict[str, PredictionPart](), dict[str, Figure]()
    for spec in study.specs:
        step = _measured_step(study.connection, spec.run) if spec.influence.retraining is not None else None
        if step is None:
            continue
        measures = lds_measures(study.connection, spec.run, step)
        figures = draw_predictions(study.connection, spec, step)
        for mechanism in spec.influence.mechanisms:
            here = measures.filter(mechanism=mechanism)
            if mechanism in parts or here.is_empty():
                continue
            parts[mechanism] = _part(Subject(spec.run, mechanism, step), here, figures)
            drawn |= {picture.figure: figures[picture.figure] for picture in parts[mechanism].pictures}
    context = {"parts": list(parts.values()), "nothing": no_predictions(study)}
    return Section(
        "predictions", "How good are the predictions?", "retraining/section.html", context, drawn, empty=not parts
    )


def no_predictions(study: Study) -> str:
    """Why there is nothing to show."""
    if any(spec.influence.mechanisms and spec.influence.retraining for spec in study.specs):
        return "Retraining without some examples was asked for, but it has not been computed yet."
    return (
        "Not measured: this experiment retrains nothing. With `influence.retraining` it leaves out random examples, trains "
        "again, and compares with what influence predicts."
    )


def _measured_step(connection: duckdb.DuckDBPyConnection, run: str) -> int | None:
    """The target step that was retrained: of several one that is a formation step of the run, then the latest."""
    steps = frame(
        connection,
        """select step from lds where run = $run group by step
        order by step in (select step from formation where run = $run and step is not null) desc, step desc limit 1""",
        run=run,
    )
    return None if steps.is_empty() else int(steps.item())


def _part(subject: Subject, measures: pl.DataFrame, figures: dict[str, Figure]) -> PredictionPart:
    random, top, pictures = list[Row](), list[Row](), list[Picture]()
    for (method,), of_method in measures.group_by(["method"], maintain_order=True):
        scores = []
        for (fraction,), rows in of_method.group_by(["fraction"], maintain_order=True):
            found = {row["metric"]: row for row in rows.iter_rows(named=True)}
            share = f"{100 * float(str(fraction)):g} %"
            if "measured_mean" in found:
                random.append({"method": str(method), "share": share} | _random_row(found))
                scores.append(f"{share}: {random[-1]['lds']} (n = {random[-1]['n']})")
            if "query_loss_difference" in found:
                top.append({"method": str(method), "share": share} | _top_row(found))
        name = figure_name(subject.mechanism, str(method))
        if name in figures:
            caption = (
                f"Change of {subject.mechanism} at step {subject.target:,} of run {subject.run} without random examples "
                f"({subject.unit}), one dot per "
                f"retraining: predicted by influence ({method}) and measured. Dashed: predicted = measured. LDS with its "
                f"95 % interval, by share left out: {'; '.join(scores)}."
            )
            pictures.append(Picture(name, caption))
    return PredictionPart(subject, random, top, pictures)


def _value(found: dict[str, dict], metric: str) -> float | None:
    return found[metric]["value"] if metric in found else None


def _random_row(found: dict[str, dict]) -> Row:
    score = found.get("lds")
    return {
        "n": str(found["measured_mean"]["n"]),
        "lds": UNKNOWN if score is None else interval(score["value"], score["lower"], score["upper"]),
        "predicted": plus_minus(_value(found, "predicted_mean"), _value(found, "predicted_spread")),
        "measured": plus_minus(_value(found, "measured_mean"), _value(found, "measured_spread")),
        "slope": number(_value(found, "slope")),
        "offset": number(_value(found, "offset")),
        "diverged": number(_value(found, "diverged")),
    }


def _top_row(found: dict[str, dict]) -> Row:
    return {
        "change": number(_value(found, "query_loss_difference")),
        "predicted": number(_value(found, "predicted_difference")),
        "random": plus_minus(_value(found, "measured_mean"), _value(found, "measured_spread")),
        "z": number(_value(found, "query_loss_z")),
        "matched": number(_value(found, "matched_difference")),
        "matched_predicted": number(_value(found, "matched_predicted")),
    }
