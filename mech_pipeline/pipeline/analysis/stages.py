"""The stages that look at checkpoints: analysis, circuits, neurons, losses of examples; and formation."""

from collections.abc import Sequence

from mech_pipeline.pipeline.analysis import formation, wanted
from mech_pipeline.pipeline.cells import pending_cells
from mech_pipeline.pipeline.grid import kept_steps
from mech_pipeline.pipeline.needs import REPLAY, Need
from mech_pipeline.pipeline.stage import FIRST_ROWS, TOP, Cells, Output, Scope, Stage, Told, View, always
from mech_pipeline.progress import Progress


def _analysed(view: View) -> Cells:
    """Cells of all three tables, at the checkpoints that are there."""
    there = [step for step in kept_steps(view.store, view.spec) if step in view.found.checkpoints]
    return {
        cell: made_from
        for table in wanted.OUTPUTS
        for cell, made_from in wanted.wanted(view.found, table, there).items()
    }


def _analyse(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.analysis.analysis import analyse

    return analyse(view.opened, told.outputs or wanted.OUTPUTS, steps, told.on_steps)


def _compute_circuits(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.analysis.circuits import compute_circuits

    run = view.opened
    late = {cell.step for cell in wanted.pending_circuits(run, steps)}
    report = Progress(told.emit, f"circuits {run.spec.run}", len(late), "checkpoints")
    return compute_circuits(run, steps, told.on_steps, report)


def _compute_neurons(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.analysis.neurons import compute_neurons

    run = view.opened
    windows = wanted.neuron_windows(run)
    updates = sum(
        cell.step - windows[cell.step] for cell in wanted.pending_neurons(run, steps) if cell.step is not None
    )
    return compute_neurons(
        run, steps, told.on_steps, Progress(told.emit, f"neurons {run.spec.run}", updates, "updates")
    )


def _compute_example_losses(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.analysis.example_losses import compute_example_losses

    run = view.opened
    late = pending_cells(run.store, wanted.wanted_example_losses(run, steps))
    report = Progress(told.emit, f"example losses {run.spec.run}", len(late), "windows")
    return compute_example_losses(run, steps, told.on_steps, report)


def _compute_readouts(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.analysis.readouts import compute_readouts

    run = view.opened
    late = pending_cells(run.store, wanted.wanted_readouts(run, steps))
    report = Progress(told.emit, f"readouts {run.spec.run}", len(late), "windows")
    return compute_readouts(run, steps, told.on_steps, report)


ANALYSIS = Stage(
    "analysis",
    "Mechanisms, heads and gradients of checkpoints.",
    Scope.CHECKPOINT,
    (
        Output(
            "mechanism_values",
            "Every mechanism at a checkpoint: a few rows, 20 ms.",
            ("mechanism_values",),
            lambda: wanted.code_version("mechanism_values"),
            inputs=("checkpoint",),
            previewed=False,
            rows="select step, mechanism, value from mechanism_values where run = $run and step in $$ order by all",
        ),
        Output(
            "head_scores",
            "Every detector on every attention head at a checkpoint: 32 rows in the demo, 20 ms.",
            ("head_scores",),
            lambda: wanted.code_version("head_scores"),
            inputs=("checkpoint",),
            previewed=False,
            rows="select step, layer, head, detector, value from head_scores where run = $run and step in $$ "
            "order by step, value desc",
        ),
        Output(
            "gradients",
            "Gradient tensors of mechanisms and of the next batch, with their norms per component: 0.8 MB, 50 ms.",
            ("gradients",),
            lambda: wanted.code_version("gradients"),
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
)

CIRCUITS = Stage(
    "circuits",
    "Edges that carry a mechanism.",
    Scope.CHECKPOINT,
    (
        Output(
            "circuits",
            "Edges that carry a mechanism (EAP with integrated gradients), their faithfulness, and random edges beside it. "
            "Seconds.",
            ("circuits", "circuit_curves", "circuit_criteria"),
            always(wanted.CIRCUITS_VERSION),
            inputs=("checkpoint",),
            rows="select step, mechanism, source, target, score from circuits where run = $run and step in $$ and "
            f"in_circuit {TOP.format(by='score')} order by step, mechanism, abs(score) desc",
        ),
    ),
    asked=lambda spec: bool(spec.circuits.mechanisms),
    grid=lambda spec: wanted.at_circuits(spec, spec.checkpoint_steps()),
    wanted=lambda view: wanted.wanted_circuits(view.found, view.found.planned),
    pending=lambda view, cells: wanted.pending_circuits(view.found, view.found.planned),
    compute=_compute_circuits,
    reads=("training",),
    needs=frozenset({Need.WEIGHTS}),
    priority=20,
    pool="gpu_analysis",
)

NEURONS = Stage(
    "neurons",
    "Which tokens moved every neuron.",
    Scope.CHECKPOINT,
    (
        Output(
            "neurons",
            "Tokens and positions that moved every neuron's weights over the window that ends here. Exact; not a prediction.",
            ("neurons", "neuron_tokens", "neuron_contexts"),
            always(wanted.NEURONS_VERSION),
            inputs=("checkpoint",),
            group="attribution",
            rows="select step, layer, neuron, part, displacement, effective_tokens from neurons where run = $run and "
            f"step in $$ qualify row_number() over (partition by step order by displacement desc) <= {FIRST_ROWS} "
            "order by step, displacement desc",
        ),
    ),
    asked=lambda spec: bool(spec.neurons.windows),
    grid=lambda spec: (end for _begin, end in spec.neurons.windows),
    wanted=lambda view: wanted.wanted_neurons(view.found, view.found.planned),
    pending=lambda view, cells: wanted.pending_neurons(view.found, view.found.planned),
    compute=_compute_neurons,
    reads=("training",),
    needs=REPLAY,
    priority=30,
    pool="gpu_analysis",
)

READOUTS = Stage(
    "readouts",
    "Which tokens the movements of neurons and heads promote.",
    Scope.CHECKPOINT,
    (
        Output(
            "vocabulary_readouts",
            "The change of output weights over the window that ends here, read in the vocabulary: tokens that each head and the "
            "neurons that moved furthest promote and suppress. Weights of two checkpoints are all it needs. A second.",
            ("vocabulary_readouts",),
            always(wanted.READOUTS_VERSION),
            inputs=("checkpoint",),
            rows="select step, layer, part, unit, direction, text, logit, moved from vocabulary_readouts where run = $run and "
            f"step in $$ and place = 0 qualify row_number() over (partition by step order by abs(logit) desc) <= {FIRST_ROWS} "
            "order by step, abs(logit) desc",
        ),
    ),
    asked=lambda spec: bool(spec.readouts.windows),
    grid=lambda spec: (end for _begin, end in spec.readouts.windows),
    wanted=lambda view: wanted.wanted_readouts(view.found, view.found.planned),
    compute=_compute_readouts,
    reads=("training",),
    needs=frozenset({Need.WEIGHTS}),
    priority=25,
    pool="gpu_analysis",
)

EXAMPLE_LOSSES = Stage(
    "example_losses",
    "Loss of every example at every update.",
    Scope.CHECKPOINT,
    (
        Output(
            "example_losses",
            "What the model knew of each example when it saw it: its loss before every update since the checkpoint before. "
            "A row per place in a batch; a replay of the run.",
            ("example_losses",),
            always(wanted.EXAMPLE_LOSSES_VERSION),
            inputs=("checkpoint",),
            rows="select step, update_step, example_id, loss_nats from example_losses where run = $run and step in $$ "
            f"qualify row_number() over (partition by step order by loss_nats desc) <= {FIRST_ROWS} "
            "order by step, loss_nats desc",
        ),
    ),
    asked=lambda spec: spec.example_losses,
    grid=lambda spec: spec.checkpoints.possible(spec.training.steps)[1:],
    wanted=lambda view: wanted.wanted_example_losses(view.found, view.found.planned),
    compute=_compute_example_losses,
    reads=("training",),
    needs=REPLAY,
    priority=15,
    pool="gpu_analysis",
)

FORMATION = Stage(
    "formation",
    "Finds when mechanisms formed.",
    Scope.RUN,
    (
        Output(
            "formation",
            "When each watched value crossed its threshold and stayed; censored if it never did. Some rows, a second.",
            ("formation",),
            always(formation.CODE_VERSION),
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
)
