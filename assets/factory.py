"""Assets made from the table of stages: their texts, inputs and partitions, and the bodies that are alike."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from mech_pipeline.assets.asking import Asked, asked_of, by_a_person, refuse, skip
from mech_pipeline.assets.events import PartitionEvents, emitter, stored_in
from mech_pipeline.assets.partitions import BATCH, grid_of, mapping, partition, partitions_of, split_keys
from mech_pipeline.assets.previews import query_of, readable, rows_of_run, rows_of_steps
from mech_pipeline.assets.standing import tell_standing
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.known import KNOWN
from mech_pipeline.pipeline.cells import combined_version, stored_versions
from mech_pipeline.pipeline.stage import Output, Scope, Stage, Told, View
from mech_pipeline.pipeline.stages import STAGES, output_of
from mech_pipeline.resources.store import ExperimentsResource, StoreResource
from mech_pipeline.store.store import Store

Shown = Callable[[View, str, int], Mapping[str, Any]]
"""What else the UI shows of an output at a step."""
_COUNTS = ("edges ", "norm of ")
"""Labels of what is in a unit of its own."""
OnRows = Callable[[dg.AssetExecutionContext, str], Callable[[list[dict[str, Any]]], None]]
"""What is logged of a run's rows before they are judged."""

AtEnd = Callable[[dg.AssetExecutionContext, Store], None]


def with_unit(label: str) -> str:
    """A label that ends with the name of a mechanism or detector, with its unit."""
    known = {**KNOWN.detectors, **KNOWN.mechanisms}
    unit = next((each.unit for name, each in known.items() if f" {label}".endswith(f" {name}")), None)
    return label if unit is None or label.startswith(_COUNTS) else f"{label} ({unit})"


def inputs_of(asset: str) -> list[dg.AssetDep]:
    """What an asset reads, partition by partition."""
    return [dg.AssetDep(name, partition_mapping=mapping(name, asset)) for name in output_of(asset).inputs]


def described(asset: str) -> dict[str, Any]:
    """Arguments of `dg.asset` for an output whose body is written by hand."""
    output, pool = output_of(asset), next(o.pool or s.pool for s in STAGES for o in s.outputs if o.name == asset)
    return {
        "name": asset,
        "group_name": output.group,
        "description": output.says,
        "kinds": set(output.kinds),
        "code_version": output.version(),
        "partitions_def": partitions_of(asset),
        "deps": inputs_of(asset),
        "pool": pool,
    }


def _spec(output: Output) -> dg.AssetSpec:
    return dg.AssetSpec(
        output.name,
        deps=inputs_of(output.name),
        skippable=True,
        group_name=output.group,
        description=output.says,
        code_version=output.version(),
        kinds=set(output.kinds),
    )


def step_asset(
    stage: Stage,
    curves: Mapping[str, str] | None = None,
    shown: Shown | None = None,
    on_rows: OnRows | None = None,
    at_end: AtEnd = lambda context, store: None,
) -> dg.AssetsDefinition:
    """The assets of a stage of checkpoints or of targets: one body that computes what is asked for and not current.

    Args:
        curves: SQL, by output: (step, label, number) of a run, which the UI draws as curves.
        at_end: what is done once everything is stored.
    """

    @dg.multi_asset(
        name=stage.outputs[0].name if len(stage.outputs) == 1 else f"{stage.name}_of_steps",
        specs=[_spec(output) for output in stage.outputs],
        partitions_def=grid_of(stage),
        can_subset=stage.scope == Scope.CHECKPOINT and len(stage.outputs) > 1,
        backfill_policy=BATCH,
        pool=stage.pool,
    )
    def body(context: dg.AssetExecutionContext, store: StoreResource) -> Iterator[dg.MaterializeResult]:
        run, steps = split_keys(context.partition_keys)
        view = View(store.open(), (store.run_spec(run),))
        asked = asked_of(context, stage, view, steps)
        if asked.steps and asked.outputs:
            known = asked.steps if stage.scope == Scope.CHECKPOINT else None
            told = Told(
                emit=emitter(context),
                on_steps=_Reporter(context, view, asked.outputs, curves or {}, shown, known),
                on_rows=on_rows(context, run) if on_rows is not None else lambda rows: None,
                outputs=tuple(output.name for output in asked.outputs),
            )
            stage.work(view, asked.steps, told)
            at_end(context, view.store)
            tell_standing(context, view.store, view.spec)
        if by_a_person(context):
            _answer(context, stage, run, asked)
        return
        yield

    return body


def _answer(context: dg.AssetExecutionContext, stage: Stage, run: str, asked: Asked) -> None:
    """What a person is told of the partitions that were not made.

    Raises:
        MechError: some are planned and cannot be made yet.
    """
    for output in stage.outputs:
        why = f"the experiment asks for no {output.name} of run {run} at this step"
        skip(context, output, run, asked.skipped.get(output.name, ()), why)
    if asked.refused:
        raise refuse(stage, run, asked.refused)


class _Reporter:
    """Reports steps whose rows are stored.

    Args:
        steps: all that may be reported, whose inputs are then looked up once; none: looked up when they are reported,
            because an output may be the input of the next.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        view: View,
        outputs: Sequence[Output],
        curves: Mapping[str, str],
        shown: Shown | None,
        steps: Sequence[int] | None,
    ) -> None:
        self._context, self._view, self._outputs, self._curves, self._shown = context, view, outputs, curves, shown
        self._events = {output.name: self._of(output, steps) for output in outputs} if steps is not None else {}

    def _of(self, output: Output, steps: Sequence[int]) -> PartitionEvents:
        keys = [partition(self._view.spec.run, step) for step in steps]
        to_inputs: dict[str, Callable[[str], str]] = {name: lambda key: key for name in output.inputs}
        return PartitionEvents(self._context, output.name, output.version(), to_inputs, keys)

    def __call__(self, steps: list[int]) -> None:
        store, run = self._view.store, self._view.spec.run
        for output in self._outputs:
            shown: dict[int, dict[str, Any]] = {step: {} for step in steps}
            for step, label, number in self._numbers(output):
                shown.get(step, {})[with_unit(label)] = readable(number)
            for step in steps if self._shown is not None else ():
                assert self._shown is not None, "asked just before"
                more = self._shown(self._view, output.name, step)
                shown[step] |= {label: readable(value) for label, value in more.items()}
            if output.previewed:
                rows = rows_of_steps(store, output.name, run, steps)
            else:
                rows = {step: query_of(output.name, run, step) for step in steps}
            events = self._events.get(output.name) or self._of(output, steps)
            assert output.table is not None, "what has steps has a table"
            events.report_stored(store, output.table, run, steps, {step: shown[step] | rows[step] for step in steps})

    def _numbers(self, output: Output) -> list[tuple[int, str, float]]:
        if output.name not in self._curves:
            return []
        run = self._view.spec.run
        with self._view.store.reading(*output.tables, of=[run]) as connection:
            return connection.execute(self._curves[output.name], [run]).fetchall()


def run_asset(stage: Stage) -> dg.AssetsDefinition:
    """The asset of a stage of whole runs that has one output."""
    (output,) = stage.outputs

    @dg.asset(**described(output.name))
    def body(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
        view = View(store.open(), (store.run_spec(context.partition_key),))
        if (lack := stage.lacks(view)) is not None:
            raise MechError(f"{stage.name} {lack}", "train the run here, or leave the stage out")
        stage.work(view, (), Told(emit=emitter(context)))
        return stored_result(view, output)

    return body


def stored_result(view: View, output: Output, **shown: Any) -> dg.MaterializeResult:
    """What a run's rows in an output's table are now."""
    run, table = view.spec.run, output.table
    if table is None:
        return dg.MaterializeResult(metadata=shown)
    version = combined_version(stored_versions(view.store, table, run).values())
    metadata = {**shown, **stored_in(view.store, table), **rows_of_run(view.store, output.name, run)}
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(version))


def experiment_asset(stage: Stage) -> dg.AssetsDefinition:
    """The asset of a stage of whole experiments that has one output."""
    (output,) = stage.outputs

    @dg.asset(**described(output.name))
    def body(
        context: dg.AssetExecutionContext, store: StoreResource, experiments: ExperimentsResource
    ) -> dg.MaterializeResult:
        experiment = experiments.load(None, context.partition_key)
        view = View(store.open(), experiment.runs(), {}, experiment)
        stage.work(view, (), Told(emit=emitter(context)))
        assert output.table is not None, "what is of an experiment has a table"
        version = combined_version(stored_versions(view.store, output.table, experiment.experiment).values())
        return dg.MaterializeResult(metadata=stored_in(view.store, output.table), data_version=dg.DataVersion(version))

    return body


def made(stage: Stage) -> dg.AssetsDefinition:
    """The assets of a stage that needs nothing of its own in Dagster."""
    makers = {Scope.RUN: run_asset, Scope.EXPERIMENT: experiment_asset}
    return makers.get(stage.scope, step_asset)(stage)
