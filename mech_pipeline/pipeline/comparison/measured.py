"""What was measured of an experiment's runs, as comparisons read it from the store."""

import polars as pl

from mech_pipeline.causal.paired import paired_differences
from mech_pipeline.causal.survival import Formed
from mech_pipeline.pipeline.comparison.wanted import Target, targets
from mech_pipeline.pipeline.look import among
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.store.store import Store

Formation = dict[str, dict[str, list[Formed]]]
"""Runs by mechanism and arm; an arm of which nothing is known has none."""

_PREDICTED = """
with treated as (
  select example_id, first_update, coalesce(last_update, 9223372036854775807) as last_update, weight
  from choices where run = $run)
select (select count(distinct example_id) from treated),
  coalesce((select sum((t.weight - i.weight) * i.value::double) from treated t join influence i
    on i.example_id = t.example_id and i.update_step between t.first_update and t.last_update
    where i.run = $baseline and i.step = $step and i.mechanism = $mechanism and i.method = $method), 0),
  (select value from mechanism_values where run = $run and step = $step and mechanism = $mechanism)
  - (select value from mechanism_values where run = $baseline and step = $step and mechanism = $mechanism)
"""
_SCHEMA = {
    **dict.fromkeys(("run", "arm"), pl.String),
    "seed": pl.Int64,
    "baseline": pl.String,
    "step": pl.Int64,
    **dict.fromkeys(("mechanism", "method"), pl.String),
    "examples": pl.Int64,
    **dict.fromkeys(("predicted", "measured", "shift"), pl.Float64),
}


def formations(store: Store, experiment: Experiment) -> Formation:
    """When each run formed, of every event of the experiment."""
    specs = {spec.run: spec for spec in experiment.runs()}
    with store.reading("formation") as connection:
        rows = connection.execute(
            f'select run, mechanism, "lower", step from formation where {among("run", list(specs))}', list(specs)
        ).fetchall()
    found: Formation = {event.signal: {arm: [] for arm in experiment.arms} for event in experiment.formation}
    for run, signal, lower, step in sorted(rows):
        if signal in found:
            found[signal][specs[run].arm].append(Formed(specs[run].seed, lower, step))
    return found


def chosen_examples(store: Store, experiment: Experiment) -> dict[str, float]:
    """Examples that a run of each arm treats otherwise, mean over its runs; arms that choose nothing are left out."""
    specs = {spec.run: spec for spec in experiment.runs() if spec.choice is not None}
    with store.reading("choices") as connection:
        rows = connection.execute(
            f"select run, count(distinct example_id) from choices where {among('run', list(specs))} group by 1",
            list(specs),
        ).fetchall()
    counts: dict[str, list[int]] = {}
    for run, count in rows:
        counts.setdefault(specs[run].arm, []).append(count)
    return {arm: sum(each) / len(each) for arm, each in counts.items()}


def predictions(store: Store, experiment: Experiment) -> pl.DataFrame:
    """Rows of `predictions`, without the experiment."""
    formed = formations(store, experiment)[experiment.formation[0].signal]
    steps = {(arm, run.seed): run for arm, runs in formed.items() for run in runs}
    rows = []
    for target in targets(store, experiment):
        spec, recipe = target.spec, target.spec.choice
        assert recipe is not None, "it treats examples"
        examples, predicted, measured = _predicted(store, target)
        apart = _shift(steps.get((spec.arm, spec.seed)), steps.get((recipe.of, spec.seed)))
        named = (spec.run, spec.arm, spec.seed, target.baseline, target.step, target.mechanism, target.method)
        rows.append((*named, examples, predicted, measured, apart))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def _predicted(store: Store, target: Target) -> tuple[int, float, float]:
    """(examples, predicted change, measured change)."""
    asked = {
        "run": target.spec.run,
        "baseline": target.baseline,
        "step": target.step,
        "mechanism": target.mechanism,
        "method": target.method,
    }
    with store.reading("choices", "influence", "mechanism_values") as connection:
        found = connection.execute(_PREDICTED, asked).fetchone()
    assert found is not None, "the query always gives a row"
    examples, predicted, measured = found
    return examples, predicted, measured


def _shift(run: Formed | None, baseline: Formed | None) -> float | None:
    if run is None or baseline is None:
        return None
    return next(iter(paired_differences([run], [baseline]).tolist()), None)
