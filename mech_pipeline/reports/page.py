"""The report of one experiment: one HTML file that needs nothing else, and its figures as PNG.

Made from the store alone, without dates or paths, so that the same store gives the same bytes. What is missing is
said in a sentence where it would stand.
"""

import base64
from dataclasses import dataclass
from importlib import resources
from typing import Any

import duckdb
import polars as pl
from jinja2 import Environment, StrictUndefined, Template

from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS
from mech_pipeline.reports.answer import answer
from mech_pipeline.reports.circuits.section import circuit_sections, no_circuits
from mech_pipeline.reports.drawing import figure_png
from mech_pipeline.reports.formation import figures, queries
from mech_pipeline.reports.heads.figures import head_atlas, head_scores_over_steps
from mech_pipeline.reports.heads.section import head_classes
from mech_pipeline.reports.influence import queries as attribution_queries
from mech_pipeline.reports.influence.queries import Method
from mech_pipeline.reports.influence.sections import (
    balance_rows,
    first_per_mechanism,
    influence_section,
    ledger_section,
)
from mech_pipeline.reports.neurons.section import neuron_sections, no_neurons
from mech_pipeline.reports.provenance import sql_examples, version_texts
from mech_pipeline.reports.retraining.section import no_predictions, prediction_sections
from mech_pipeline.reports.wording import UNKNOWN, number, plus_minus, signal_name, signal_unit
from mech_pipeline.spec.analysis import Event
from mech_pipeline.spec.experiment import Experiment


@dataclass(frozen=True)
class Report:
    """The page, and each of its figures by file name."""

    html: str
    figures: dict[str, bytes]


def build_report(connection: duckdb.DuckDBPyConnection, experiment: Experiment) -> Report:
    """Queries, draws and writes the report of an experiment. Seconds, mostly for the ledger's sums.

    Args:
        connection: from `store.catalog.connect`.
        experiment: names the runs; rows of other runs are not read.
    """
    runs = [spec.run for spec in experiment.runs()]
    drawn: dict[str, bytes] = {}
    results = [queries.results_table(connection, runs, event.signal) for event in experiment.formation]
    n_runs = _draw_formation(connection, experiment, runs, drawn)
    head_run = _draw_heads(connection, experiment, runs, drawn)
    ledger = [ledger_section(connection, *pair, drawn) for pair in _shown(connection, experiment, "ledger")]
    influence = [influence_section(connection, *pair, drawn) for pair in _shown(connection, experiment, "influence")]
    provenance = queries.run_provenance(connection, runs)
    html = _template().render(
        experiment=experiment,
        answer=answer(experiment, results[0], influence),
        results=[_event_results(*pair) for pair in zip(experiment.formation, results, strict=True)],
        n_runs=n_runs,
        head_run=head_run,
        mechanisms={name: MECHANISMS[name] for name in experiment.mechanisms},
        detectors={name: DETECTORS[name] for name in experiment.detectors},
        circuits=circuit_sections(connection, experiment, drawn),
        no_circuits=no_circuits(experiment),
        head_classes=head_classes(connection, experiment, runs),
        neurons=neuron_sections(connection, experiment, drawn),
        no_neurons=no_neurons(experiment),
        ledger=ledger,
        no_ledger=_no_ledger(experiment),
        balance=balance_rows(connection, experiment),
        influence=influence,
        no_influence=_no_influence(experiment, results[0]),
        predictions=prediction_sections(connection, experiment, drawn),
        no_predictions=no_predictions(experiment),
        provenance=provenance.to_dicts(),
        versions=version_texts(provenance),
        sql=sql_examples(experiment, ledger, influence),
        images={name: base64.b64encode(png).decode() for name, png in drawn.items()},
    )
    return Report(html, drawn)


def _template() -> Template:
    source = resources.files("mech_pipeline.reports").joinpath("report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)


def _shown(connection: duckdb.DuckDBPyConnection, experiment: Experiment, method: Method) -> list[tuple[str, str]]:
    """The first run of each of the experiment's mechanisms that has a ledger or influence, as (run, mechanism)."""
    runs = [spec.run for spec in experiment.runs()]
    pairs = first_per_mechanism(attribution_queries.attributed(connection, method, runs))
    return [pair for pair in pairs if pair[1] in experiment.mechanisms]


def _draw_formation(
    connection: duckdb.DuckDBPyConnection, experiment: Experiment, runs: list[str], drawn: dict[str, bytes]
) -> int:
    """Adds the formation figure, if there is anything to draw. Returns the number of runs with values."""
    curves = queries.mechanism_curves(connection, runs)
    if curves.height:
        units = {name: signal_unit(name) for name in experiment.mechanisms if name in curves["mechanism"]}
        events = queries.formation_events(connection, runs)
        drawn["formation_curves.png"] = figures.figure_png(figures.formation_curves(curves, events, units))
    return curves["run"].n_unique()


def _draw_heads(
    connection: duckdb.DuckDBPyConnection, experiment: Experiment, runs: list[str], drawn: dict[str, bytes]
) -> str | None:
    """Adds the head figures of the first run that has head scores, and names that run."""
    for run in runs:
        scores = queries.head_scores(connection, run)
        units = {name: DETECTORS[name].unit for name in experiment.detectors if name in scores["detector"]}
        if units:
            drawn["head_scores_over_steps.png"] = figure_png(head_scores_over_steps(scores, run, units))
            drawn["head_atlas.png"] = figure_png(head_atlas(scores, run, units))
            return run
    return None


def _event_results(event: Event, table: pl.DataFrame) -> dict[str, Any]:
    """What the template shows of one formation event: its words, and one row per arm."""
    return {
        "name": signal_name(event.signal),
        "unit": signal_unit(event.signal),
        "threshold": f"{event.threshold:g}",
        "sustain": event.sustain,
        "rows": [_result_row(row) for row in table.iter_rows(named=True)],
    }


def _result_row(row: dict[str, Any]) -> dict[str, str]:
    seeds = zip(row["seeds"], row["steps"], row["lowers"], strict=True)
    interval = f"{number(row['step_low'])} to {number(row['step_high'])}" if row["step_low"] is not None else UNKNOWN
    return {
        "arm": row["arm"],
        "n": str(row["n_seeds"]),
        "censored": str(row["n_censored"]),
        "seeds": "; ".join(_seed_step(*seed) for seed in seeds),
        "step": plus_minus(row["step_mean"], row["step_sd"]),
        "interval": interval,
        "value": plus_minus(row["value_mean"], row["value_sd"]),
        "head": plus_minus(row["head_mean"], row["head_sd"]),
    }


def _seed_step(seed: int, step: int | None, lower: int | None) -> str:
    """One seed's formation step as the interval that the checkpoint grid leaves open."""
    if lower is None:
        return f"s{seed}: not computed"
    return f"s{seed}: censored, not by {lower:,}" if step is None else f"s{seed}: {step:,} (after {lower:,})"


def _no_ledger(experiment: Experiment) -> str:
    """Why there is no ledger to show."""
    if any(spec.ledger for spec in experiment.runs()):
        return "A ledger was asked for, but it has not been computed yet."
    return (
        "This experiment asks for no ledger (no run is covered by `ledger.mechanisms`, `ledger.arms` and "
        "`ledger.seeds`)."
    )


def _no_influence(experiment: Experiment, results: pl.DataFrame) -> str:
    """Why there is no influence to show."""
    covered = [spec for spec in experiment.runs() if spec.influence.mechanisms]
    if not covered:
        return (
            "This experiment asks for no influence (no run is covered by `influence.mechanisms`, `influence.arms` and "
            "`influence.seeds`)."
        )
    formed = {
        (row["arm"], seed)
        for row in results.iter_rows(named=True)
        for seed, step in zip(row["seeds"], row["steps"], strict=True)
        if step is not None
    }
    if results.height and not formed & {(spec.arm, spec.seed) for spec in covered}:
        return "Influence is computed where the first formation event happened, and in no run it covers it happened."
    return "Influence was asked for, but it has not been computed yet."
