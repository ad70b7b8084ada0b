"""Which cells of analysis, circuits, neurons and losses of examples there should be, and what each would be made from now.

Each mechanism, detector and gradient is a cell of its own: raising one detector's version recomputes that detector.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from mech_pipeline.attribution.per_example.names_version import names_version
from mech_pipeline.mechanisms.known import KNOWN
from mech_pipeline.pipeline.cells import Cell, pending_cells
from mech_pipeline.pipeline.found import FoundRun
from mech_pipeline.pipeline.grid import (
    detector_probe_version,
    mechanism_fingerprint,
    mechanism_versions,
    probe_version,
)
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec

GRADIENTS_VERSION = "1"
CIRCUITS_VERSION = "1"
NEURONS_VERSION = "1"
EXAMPLE_LOSSES, EXAMPLE_LOSSES_VERSION = "example_losses", "1"
READOUTS = "vocabulary_readouts"
READOUTS_VERSION = "1"
BATCH = "batch"
"""What the table `gradients` calls the gradient of the next batch."""
CIRCUIT_TABLES = ("circuit_curves", "circuit_criteria", "circuits")
NEURON_TABLES = ("neuron_contexts", "neuron_tokens", "neurons")


def code_version(table: str) -> str:
    """The version of what fills a table of the analysis, for Dagster to display: one for all mechanisms or detectors."""
    if table == "head_scores":
        return fingerprint({name: detector.version for name, detector in KNOWN.detectors.items()})[:8]
    return f"{GRADIENTS_VERSION}-{mechanism_versions()}" if table == "gradients" else mechanism_versions()


def wanted(run: FoundRun, table: str, steps: Iterable[int]) -> dict[Cell, str]:
    """Fingerprints of a table's cells at the given steps, from what they would be made now."""
    return {cell: made_from for step in steps for cell, made_from in _WANTED[table](run, step).items()}


def pending(run: FoundRun, tables: Iterable[str], steps: Iterable[int]) -> dict[str, list[Cell]]:
    """The cells of each table that must be computed."""
    steps = list(steps)
    return {table: pending_cells(run.store, wanted(run, table, steps)) for table in tables}


def _values(run: FoundRun, step: int) -> dict[Cell, str]:
    """Each mechanism's value at a checkpoint."""
    state = run.checkpoint_version(step)
    return {
        Cell("mechanism_values", run.spec.run, step, name): mechanism_fingerprint(
            run.spec, name, state, probe_version(name, run.artifacts)
        )
        for name in run.spec.measured
    }


def _head_scores(run: FoundRun, step: int) -> dict[Cell, str]:
    """Each detector's scores at a checkpoint."""
    state, cells = run.checkpoint_version(step), dict[Cell, str]()
    for name in run.spec.detectors:
        probe = detector_probe_version(name, run.artifacts)
        made_from = fingerprint("detector", name, KNOWN.detectors[name].version, state, probe, run.spec.model)
        cells[Cell("head_scores", run.spec.run, step, name)] = made_from
    return cells


def _gradients(run: FoundRun, step: int) -> dict[Cell, str]:
    """Each gradient; the tensors are large, so there are none at the steps that only a zoom keeps."""
    spec, cells = run.spec, dict[Cell, str]()
    if step not in run.planned or not spec.gradients:
        return cells
    state, made_by = run.checkpoint_version(step), [spec.model, *names_version(spec.model)]
    for name in spec.gradients:
        version, probe = KNOWN.mechanisms[name].version, probe_version(name, run.artifacts)
        made_from = fingerprint("gradient", GRADIENTS_VERSION, name, version, state, probe, *made_by)
        cells[Cell("gradients", spec.run, step, name)] = made_from
    batch: list[Any] = [run.artifacts["pool"], spec.seed, spec.training.batch]
    batch += [spec.data.mixture] if spec.data.mixture else []
    batch += [run.artifacts[name] for name in spec.treatments]
    batch += [spec.interventions] if spec.interventions else []
    cells[Cell("gradients", spec.run, step, BATCH)] = fingerprint(
        "gradient", GRADIENTS_VERSION, BATCH, state, batch, *made_by
    )
    return cells


_WANTED: dict[str, Callable[[FoundRun, int], dict[Cell, str]]] = {
    "mechanism_values": _values,
    "head_scores": _head_scores,
    "gradients": _gradients,
}
OUTPUTS = tuple(_WANTED)


def circuit_steps(run: FoundRun) -> list[int]:
    """Checkpoints whose circuits are asked for."""
    return at_circuits(run.spec, run.planned)


def at_circuits(spec: RunSpec, planned: Sequence[int]) -> list[int]:
    """Of the planned steps, those whose circuits a run asks for."""
    if not spec.circuits.mechanisms:
        return []
    return [step for step in planned if step % spec.circuits.every == 0 or step == planned[-1]]


def wanted_circuits(run: FoundRun, steps: Iterable[int]) -> dict[Cell, str]:
    """Fingerprints of the circuits at some checkpoints, one per mechanism."""
    steps, asked = set(steps), run.spec.circuits
    return {
        Cell("circuits", run.spec.run, step, name): fingerprint(
            *("circuit", CIRCUITS_VERSION, name, KNOWN.mechanisms[name].version, asked.random_orders),
            *(run.checkpoint_version(step), probe_version(name, run.artifacts), run.spec.model),
        )
        for step in circuit_steps(run)
        if step in steps and step in run.checkpoints
        for name in asked.mechanisms
    }


def pending_circuits(run: FoundRun, steps: Iterable[int]) -> list[Cell]:
    """The circuits that must be computed: not current in one of the tables."""
    return pending_cells(run.store, wanted_circuits(run, steps), also=CIRCUIT_TABLES)


def neuron_windows(run: FoundRun) -> dict[int, int]:
    """First step of each window of neurons that is asked for, by its last."""
    return {end: begin for begin, end in run.spec.neurons.windows}


def window_bounds(run: FoundRun, begin: int, end: int) -> list[int]:
    """Planned checkpoints from which pieces of a window are replayed."""
    return [step for step in run.planned if begin <= step <= end and step in run.checkpoints]


def wanted_neurons(run: FoundRun, steps: Iterable[int]) -> dict[Cell, str]:
    """Fingerprints of the windows of neurons that end at these steps."""
    asked, steps = run.spec.neurons, set(steps)
    cells: dict[Cell, str] = {}
    for end, begin in neuron_windows(run).items():
        if end in steps and {begin, end} <= set(run.checkpoints):
            states = [run.checkpoint_version(step) for step in window_bounds(run, begin, end)]
            data = [run.artifacts.get(name, "") for name in ("tokenizer", "corpus", "probe")]
            settings = [asked.tokens, asked.contexts, asked.ablated]
            cell = Cell("neurons", run.spec.run, end)
            cells[cell] = fingerprint("neurons", NEURONS_VERSION, begin, states, run.training, data, settings)
    return cells


def pending_neurons(run: FoundRun, steps: Iterable[int]) -> list[Cell]:
    """The windows of neurons that must be computed: not current in one of the tables."""
    return pending_cells(run.store, wanted_neurons(run, steps), also=NEURON_TABLES)


def wanted_example_losses(run: FoundRun, steps: Iterable[int]) -> dict[Cell, str]:
    """Fingerprints of the windows that end at these steps; step 0 ends none."""
    windows = {end: begin for begin, end in run.windows(max(run.checkpoints, default=0))}
    states = {end: [run.checkpoint_version(step) for step in (windows[end], end)] for end in steps if end in windows}
    return {
        Cell(EXAMPLE_LOSSES, run.spec.run, end): fingerprint(
            EXAMPLE_LOSSES, EXAMPLE_LOSSES_VERSION, run.training, *versions
        )
        for end, versions in states.items()
    }


def wanted_readouts(run: FoundRun, steps: Iterable[int]) -> dict[Cell, str]:
    """Fingerprints of the windows of readouts that end at these steps."""
    asked, steps = run.spec.readouts, set(steps)
    words = run.artifacts.get("tokenizer", "")
    return {
        Cell(READOUTS, run.spec.run, end): fingerprint(
            *(READOUTS, READOUTS_VERSION, run.spec.model, words, asked.tokens, asked.neurons),
            *(run.checkpoint_version(step) for step in (begin, end)),
        )
        for begin, end in asked.windows
        if end in steps and {begin, end} <= set(run.checkpoints)
    }
