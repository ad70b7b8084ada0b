"""The stages of the pipeline, one table.

Plan, batches of work, the launcher's order, Dagster's assets, jobs and their texts, previews, `mech verify --repair`,
`mech status` and the table in docs/architecture.md are derived from it. A new stage is one module and one entry here
(docs/extend.md shows it).
"""

from collections.abc import Callable, Mapping, Sequence

from mech_pipeline.attribution.retraining.removals import asked_removals
from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.pipeline import report
from mech_pipeline.pipeline.analysis import analysis, circuits, formation, neurons
from mech_pipeline.pipeline.cells import Cell, pending_cells
from mech_pipeline.pipeline.checkpoints import TRAINING_VERSION
from mech_pipeline.pipeline.grid import kept_steps
from mech_pipeline.pipeline.influence import influence
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.retraining import lds, retraining
from mech_pipeline.pipeline.run_row import describe_run, run_row_fingerprint
from mech_pipeline.pipeline.stage import REPLAY, Cells, Need, Output, Scope, Stage, Told, View
from mech_pipeline.pipeline.tokens import tokens
from mech_pipeline.pipeline.tokens.probe_data import check_probe_data
from mech_pipeline.pipeline.training import fill
from mech_pipeline.progress import Progress
from mech_pipeline.store.care.maintain import compact_runs, crowded_tables

ROWS = 5
"""Rows of a partition that the UI shows of a ranking."""
_EXAMPLE = "kind, text, document, line"
_GROUPED = f"group by step, mechanism, {_EXAMPLE}"
_TOP = f"qualify row_number() over (partition by step, mechanism order by abs({{by}}) desc) <= {ROWS}"
_DONE = ("training", "analysis", "circuits", "neurons", "ledger", "formation", "influence", "retraining")


def _always(version: str) -> Callable[[], str]:
    return lambda: version


def _described(view: View) -> Cells:
    row = Cell("runs", view.spec.run)
    made_from = run_row_fingerprint(view.spec, view.corpus_sha256)
    return {row: made_from} | tokens.wanted(view.spec, view.corpus_sha256)


def _undescribed(view: View, wanted: Cells) -> list[Cell]:
    row = {cell: made_from for cell, made_from in wanted.items() if cell.table == "runs"}
    return pending_cells(view.store, row) + tokens.missing_tokens(view.store, view.spec, view.corpus_sha256)


def _describe(view: View, steps: Sequence[int], told: Told) -> int:
    describe_run(view.store, view.spec, view.corpus_sha256)
    made = tokens.prepare_tokens(view.store, view.spec, read_corpus(view.spec.corpus), told.emit)
    check_probe_data(view.spec, tokens.load_tokens(view.store, view.spec).probe)
    return made


def _train(view: View, steps: Sequence[int], told: Told) -> int:
    return sum(fill.fill_checkpoints(view.store, view.spec, emit=told.emit).values())


def _analysed(view: View) -> Cells:
    """Cells of all three tables, at the checkpoints that are there."""
    there = [step for step in kept_steps(view.store, view.spec) if step in view.opened.checkpoints]
    return {
        cell: made_from
        for table in analysis.OUTPUTS
        for cell, made_from in analysis.wanted(view.opened, table, there).items()
    }


def _analyse(view: View, steps: Sequence[int], told: Told) -> int:
    return analysis.analyse(view.opened, told.outputs or analysis.OUTPUTS, steps, told.on_steps)


def _progress(told: Told, label: str, total: int, unit: str) -> Progress:
    return Progress(told.emit, label, total, unit)


def _compute_circuits(view: View, steps: Sequence[int], told: Told) -> int:
    run = view.opened
    late = {cell.step for cell in circuits.pending(run, steps)}
    report = _progress(told, f"circuits {run.spec.run}", len(late), "checkpoints")
    return circuits.compute_circuits(run, steps, told.on_steps, report)


def _compute_neurons(view: View, steps: Sequence[int], told: Told) -> int:
    run = view.opened
    windows = neurons.windows(run)
    updates = sum(cell.step - windows[cell.step] for cell in neurons.pending(run, steps) if cell.step is not None)
    return neurons.compute_neurons(
        run, steps, told.on_steps, _progress(told, f"neurons {run.spec.run}", updates, "updates")
    )


def _compute_ledger(view: View, steps: Sequence[int], told: Told) -> int:
    run = view.opened
    late = {cell.step for cell in ledger.pending(run, steps)}
    report = _progress(told, f"ledger {run.spec.run}", len(late), "windows")
    return ledger.compute_ledger(run, steps, told.on_steps, report, told.on_rows)


def _influenced(view: View) -> Cells:
    return influence.wanted(view.opened, influence.target_steps(view.opened))


def _compute_influence(view: View, steps: Sequence[int], told: Told) -> int:
    count = influence.compute_influence(view.opened, steps, told.emit)
    told.on_steps(list(steps))
    return count


def _retrained(view: View) -> Cells:
    step = retraining.retraining_step(view.opened)
    return {} if step is None else retraining.wanted(view.opened, step) | lds.wanted(view.opened, step)


def _not_retrained(view: View, wanted: Cells) -> list[Cell]:
    step = retraining.retraining_step(view.opened)
    return [] if step is None else retraining.pending(view.opened, step) + lds.pending(view.opened, step)


def _retrain(view: View, steps: Sequence[int], told: Told) -> int:
    count = 0
    for step in steps:
        count += retraining.compute_retrainings(view.opened, step, told.emit)
        count += lds.compute_lds(view.opened, step)
        told.on_steps([step])
    return count


def _crowded(view: View) -> Cells:
    """Tables in which the run has many files; what is in them stays as it is."""
    return {Cell(name, view.spec.run): "crowded" for name in crowded_tables(view.store, view.spec.run)}


def _reported(view: View) -> Cells:
    assert view.experiment is not None, "a report is of an experiment"
    return report.wanted(view.store, view.experiment)


def _not_reported(view: View, wanted: Cells) -> list[Cell]:
    assert view.experiment is not None, "a report is of an experiment"
    return report.pending(view.store, view.experiment)


def _report(view: View, steps: Sequence[int], told: Told) -> int:
    assert view.experiment is not None, "a report is of an experiment"
    report.make_report(view.store, view.experiment)
    return 1


STAGES: tuple[Stage, ...] = (
    Stage(
        "spec",
        "Describes runs and makes their tokens.",
        Scope.RUN,
        (
            Output(
                "run_spec",
                "The run's resolved description and identity: one row. A second.",
                ("runs",),
                _always("1"),
                group="spec",
                kinds=("yaml",),
                rows="select run, arm, seed, status, device, caveats from runs where run = $run",
            ),
            Output(
                "tokens",
                "Tokenizer, token shard, examples and probe, content-addressed. About ten seconds for 12 MB, shared by runs.",
                ("tokens", "token_shards", "examples", "example_documents"),
                _always(tokens.CODE_VERSION),
                inputs=("run_spec",),
                group="spec",
                kinds=("safetensors",),
                rows="select artifact, rows, bytes from tokens where run = $run order by rows desc",
            ),
        ),
        wanted=_described,
        pending=_undescribed,
        compute=_describe,
        priority=90,
    ),
    Stage(
        "training",
        "Trains runs, or goes on where they stopped.",
        Scope.RUN,
        (
            Output(
                "training_run",
                "One training run: fills its planned checkpoints, resuming bit for bit. A minute for the demo.",
                ("training_metrics", "checkpoints", "batches", "in_training"),
                _always(TRAINING_VERSION),
                inputs=("run_spec", "tokens"),
                group="training",
                kinds=("pytorch",),
                rows="select metric, arg_min(value, step) as first, arg_max(value, step) as last, min(value) as lowest, "
                "max(value) as highest from training_metrics where run = $run group by metric order by metric",
            ),
            Output(
                "checkpoint",
                "A kept state: weights, moments, cursor; reported by `training_run` while it trains. Materializing it verifies it.",
                (),
                _always(TRAINING_VERSION),
                inputs=("run_spec",),
                group="training",
                kinds=("safetensors",),
                shows="checkpoints",
                scope=Scope.CHECKPOINT,
                rows="select step, cursor as examples_seen, bytes, uri from checkpoints where run = $run and step in $$",
            ),
            Output(
                "zoom",
                "Every state of a window of a run, replayed from the nearest checkpoint, bit for bit; results do not change.",
                ("zooms",),
                _always(TRAINING_VERSION),
                inputs=("run_spec", "tokens"),
                group="training",
                kinds=("pytorch",),
                rows="select * from zooms where run = $run",
            ),
        ),
        wanted=lambda view: fill.wanted(view.opened),
        pending=lambda view, wanted: fill.pending(view.opened),
        compute=_train,
        reads=("spec",),
        priority=50,
        pool="gpu_train",
    ),
    Stage(
        "analysis",
        "Mechanisms, heads and gradients of checkpoints.",
        Scope.CHECKPOINT,
        (
            Output(
                "mechanism_values",
                "Every mechanism at a checkpoint: a few rows, 20 ms.",
                ("mechanism_values",),
                lambda: analysis.code_version("mechanism_values"),
                inputs=("checkpoint",),
                previewed=False,
                rows="select step, mechanism, value from mechanism_values where run = $run and step in $$ order by all",
            ),
            Output(
                "head_scores",
                "Every detector on every attention head at a checkpoint: 32 rows in the demo, 20 ms.",
                ("head_scores",),
                lambda: analysis.code_version("head_scores"),
                inputs=("checkpoint",),
                previewed=False,
                rows="select step, layer, head, detector, value from head_scores where run = $run and step in $$ "
                "order by step, value desc",
            ),
            Output(
                "gradients",
                "Gradient tensors of mechanisms and of the next batch, with their norms per component: 0.8 MB, 50 ms.",
                ("gradients",),
                lambda: analysis.code_version("gradients"),
                inputs=("checkpoint",),
                previewed=False,
                kinds=("safetensors",),
                rows="select step, gradient, component, value as norm from gradients where run = $run and step in $$ "
                "order by step, norm desc",
            ),
        ),
        wanted=_analysed,
        compute=_analyse,
        reads=("training",),
        needs=frozenset({Need.WEIGHTS}),
        live=True,
        priority=60,
        pool="gpu_analysis",
    ),
    Stage(
        "circuits",
        "Edges that carry a mechanism.",
        Scope.CHECKPOINT,
        (
            Output(
                "circuits",
                "Edges that carry a mechanism (EAP with integrated gradients), their faithfulness, and random edges beside it. "
                "Seconds.",
                ("circuits", "circuit_curves", "circuit_criteria"),
                _always(circuits.CODE_VERSION),
                inputs=("checkpoint",),
                rows="select step, mechanism, source, target, score from circuits where run = $run and step in $$ and "
                f"in_circuit {_TOP.format(by='score')} order by step, mechanism, abs(score) desc",
            ),
        ),
        asked=lambda spec: bool(spec.circuits.mechanisms),
        wanted=lambda view: circuits.wanted(view.opened, view.opened.planned),
        pending=lambda view, wanted: circuits.pending(view.opened, view.opened.planned),
        compute=_compute_circuits,
        reads=("training",),
        needs=frozenset({Need.WEIGHTS}),
        priority=20,
        pool="gpu_analysis",
    ),
    Stage(
        "neurons",
        "Which tokens moved every neuron.",
        Scope.CHECKPOINT,
        (
            Output(
                "neurons",
                "Tokens and positions that moved every neuron's weights over the window that ends here. Exact; not a prediction.",
                ("neurons", "neuron_tokens", "neuron_contexts"),
                _always(neurons.CODE_VERSION),
                inputs=("checkpoint",),
                group="attribution",
                rows="select step, layer, neuron, part, displacement, effective_tokens from neurons where run = $run and "
                f"step in $$ qualify row_number() over (partition by step order by displacement desc) <= {ROWS} "
                "order by step, displacement desc",
            ),
        ),
        asked=lambda spec: bool(spec.neurons.windows),
        wanted=lambda view: neurons.wanted(view.opened, view.opened.planned),
        pending=lambda view, wanted: neurons.pending(view.opened, view.opened.planned),
        compute=_compute_neurons,
        reads=("training",),
        needs=REPLAY,
        priority=30,
        pool="gpu_analysis",
    ),
    Stage(
        "ledger",
        "What happened between checkpoints, by example.",
        Scope.CHECKPOINT,
        (
            Output(
                "ledger",
                "What happened since the previous checkpoint, per example and component. Exact; not a prediction. "
                "0.1 s an update.",
                ("ledger", "ledger_balance", "ledger_tokens"),
                _always(ledger.CODE_VERSION),
                inputs=("checkpoint",),
                group="attribution",
                rows=f"select step, mechanism, sum(value::double + value_later::double) as moved, {_EXAMPLE} "
                f"from ledger join examples using (example_id) where run = $run and step in $$ {_GROUPED} "
                f"{_TOP.format(by='moved')} order by step, mechanism, abs(moved) desc",
            ),
        ),
        asked=lambda spec: bool(spec.accounts),
        wanted=lambda view: ledger.wanted(view.opened, view.opened.planned),
        pending=lambda view, wanted: pending_cells(view.store, wanted, also=["ledger_balance"]),
        compute=_compute_ledger,
        reads=("training",),
        needs=REPLAY,
        priority=40,
        pool="gpu_analysis",
    ),
    Stage(
        "formation",
        "Finds when mechanisms formed.",
        Scope.RUN,
        (
            Output(
                "formation",
                "When each watched value crossed its threshold and stayed; censored if it never did. Some rows, a second.",
                ("formation",),
                _always(formation.CODE_VERSION),
                inputs=("mechanism_values", "head_scores"),
                group="formation",
                rows="select mechanism, step, lower, upper, threshold, censored from formation where run = $run "
                "order by mechanism",
            ),
        ),
        wanted=lambda view: formation.wanted(view.store, view.spec),
        compute=lambda view, steps, told: formation.compute_formation(view.store, view.spec),
        reads=("analysis",),
        priority=70,
    ),
    Stage(
        "influence",
        "What would happen without an example.",
        Scope.TARGET,
        (
            Output(
                "influence",
                "What would happen: effect on a mechanism at this step of weighting each earlier example. A "
                "prediction, for small changes only, where `reliability` allows. About three training steps an update and "
                "mechanism.",
                ("influence", "influence_tokens", "sweeps", "sketches"),
                _always(influence.CODE_VERSION),
                inputs=("checkpoint",),
                group="attribution",
                rows="select step, mechanism, sum(value::double) as per_unit_weight, bool_and(reliable) as reliable, "
                f"{_EXAMPLE} from influence join examples using (example_id) where run = $run and step in $$ and "
                f"method = 'adjoint' {_GROUPED} "
                f"{_TOP.format(by='per_unit_weight')} order by step, mechanism, abs(per_unit_weight) desc",
            ),
            Output(
                "reliability",
                "When that influence may be trusted: metasmoothness (two trainings more), adjoint growth, horizon.",
                ("reliability",),
                _always(influence.CODE_VERSION),
                inputs=("checkpoint",),
                group="attribution",
                rows="select step, mechanism, method, metric, value from reliability where run = $run and step in $$ "
                "and update_step = -1 order by all",
            ),
        ),
        asked=lambda spec: bool(spec.influence.mechanisms),
        wanted=_influenced,
        pending=lambda view, wanted: pending_cells(view.store, wanted, also=["reliability"]),
        compute=_compute_influence,
        reads=("training", "formation"),
        needs=REPLAY,
        priority=80,
        pool="gpu_analysis",
    ),
    Stage(
        "retraining",
        "Trains without examples: predictions against what happens.",
        Scope.TARGET,
        (
            Output(
                "retrainings",
                "What really happens without some examples: the run trained again up to this step, many times. "
                "Half the time of a training each on a core; a killed one goes on with what is missing.",
                ("retrainings", "removals"),
                _always(retraining.CODE_VERSION),
                inputs=("checkpoint", "influence"),
                group="attribution",
                rows="select step, removal, mechanism, n_removed, change from retrainings where run = $run and step in $$ "
                f"and change is not null {_TOP.format(by='change')} order by step, mechanism, abs(change) desc",
            ),
            Output(
                "lds",
                "How good influence predicts those removals: rank correlation with its interval (the linear "
                "datamodeling score), calibration, and what removing the top examples did. A dozen rows.",
                ("lds",),
                _always(lds.CODE_VERSION),
                inputs=("retrainings", "influence"),
                group="attribution",
                rows="select step, mechanism, method, fraction, metric, value, lower, upper from lds where run = $run and "
                "step in $$ order by all",
            ),
        ),
        asked=lambda spec: bool(asked_removals(spec.influence)),
        wanted=_retrained,
        pending=_not_retrained,
        compute=_retrain,
        reads=("influence",),
        needs=REPLAY,
        priority=85,
        pool="gpu_analysis",
    ),
    Stage(
        "compaction",
        "Puts the rows of finished runs into few files.",
        Scope.RUN,
        (
            Output(
                "compaction",
                "A finished run's rows in one sorted file per table: queries read dozens of times fewer files. Some seconds.\n\n"
                "Rows stay as they are, so nothing becomes stale. Beside running writers it is safe: whoever commits first wins.",
                (),
                _always("1"),
                inputs=("training_run",),
                group="store",
            ),
        ),
        wanted=_crowded,
        pending=lambda view, wanted: list(wanted),
        compute=lambda view, steps, told: len(compact_runs(view.store, [view.spec.run], emit=told.emit)),
        reads=("spec",),
        after=_DONE,
        priority=0,
    ),
    Stage(
        "report",
        "Renders the report of an experiment.",
        Scope.EXPERIMENT,
        (
            Output(
                "experiment_report",
                "One self-contained HTML page: curves of all seeds, ledger, influence, and what each number may be used for.",
                ("reports",),
                _always(report.CODE_VERSION),
                inputs=(
                    *("formation", "mechanism_values", "head_scores", "circuits", "neurons", "ledger", "influence"),
                    *("reliability", "lds"),
                ),
                group="experiments",
                kinds=("html",),
            ),
        ),
        wanted=_reported,
        pending=_not_reported,
        compute=_report,
        reads=("spec",),
        after=(*_DONE, "compaction"),
    ),
)
"""In the order in which they read each other."""


def stage_of(name: str) -> Stage:
    """A stage by name."""
    return next(stage for stage in STAGES if stage.name == name)


def output_of(asset: str) -> Output:
    """What is said of an asset."""
    return next(output for stage in STAGES for output in stage.outputs if output.name == asset)


def makers() -> Mapping[str, str]:
    """The asset that fills each table."""
    return {table: output.name for stage in STAGES for output in stage.outputs for table in output.tables}
