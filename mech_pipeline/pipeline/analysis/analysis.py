"""Analysis of a checkpoint, loaded once: mechanism values, head scores, gradient tensors.

Each mechanism, detector and gradient is a cell of its own: raising one detector's version recomputes that detector.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mech_pipeline.attribution.per_example.component_labels import names_version
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.gradient import mechanism_gradient
from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS
from mech_pipeline.pipeline.checkpoints import provenance_columns
from mech_pipeline.pipeline.grid import detector_probe_version, mechanism_fingerprint, probe_version
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.store.care.registration import registration
from mech_pipeline.store.currency import Cell, outdated, stored_versions
from mech_pipeline.store.rows import content_version
from mech_pipeline.store.tables.all import TABLES
from mech_pipeline.training.device import computing
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.optimizer import Vector

GRADIENTS_VERSION = "1"
BATCH = "batch"
OUTPUTS = ("mechanism_values", "head_scores", "gradients")


def _mechanism_versions() -> str:
    """One version for all mechanisms, for Dagster to display.

    A project's file that cannot be used is named when an experiment is read. Dagster starts all the same.
    """
    try:
        return fingerprint({name: mechanism.version for name, mechanism in MECHANISMS.items()})[:8]
    except MechError:
        return "unknown"


_MECHANISMS = _mechanism_versions()
CODE_VERSIONS = {
    "mechanism_values": _MECHANISMS,
    "head_scores": fingerprint({name: d.version for name, d in DETECTORS.items()})[:8],
    "gradients": f"{GRADIENTS_VERSION}-{_MECHANISMS}",
}
_FLUSH_STEPS = 24


def wanted(run: OpenRun, table: str, steps: Iterable[int]) -> dict[Cell, str]:
    """Fingerprints of a table's cells at the given steps, from what they would be made now."""
    spec = run.spec
    cells: dict[Cell, str] = {}
    for step in steps:
        state = run.checkpoint_version(step)
        if table == "mechanism_values":
            for name in spec.mechanisms:
                cells[step, name] = mechanism_fingerprint(spec, name, state, probe_version(name, run.artifacts))
        elif table == "head_scores":
            for name in spec.detectors:
                probe = detector_probe_version(name, run.artifacts)
                cells[step, name] = fingerprint("detector", name, DETECTORS[name].version, state, probe, spec.model)
        elif step in run.planned:  # gradient tensors are large: not at every step of a zoom
            made_by = [spec.model, *names_version(spec.model)]
            for name in spec.gradients:
                version, probe = MECHANISMS[name].version, probe_version(name, run.artifacts)
                cells[step, name] = fingerprint("gradient", GRADIENTS_VERSION, name, version, state, probe, *made_by)
            if spec.gradients:
                batch = [run.artifacts["pool"], spec.seed, spec.training.batch]
                batch += [spec.data.mixture] if spec.data.mixture else []
                batch += [run.artifacts["weights"]] if spec.data.weights is not None else []
                cells[step, BATCH] = fingerprint("gradient", GRADIENTS_VERSION, BATCH, state, batch, *made_by)
    return cells


def pending(run: OpenRun, tables: Iterable[str], steps: Iterable[int]) -> dict[str, list[Cell]]:
    """The cells of each table that must be computed."""
    steps = list(steps)
    return {
        table: outdated(stored_versions(run.store, table, run.spec.run), wanted(run, table, steps)) for table in tables
    }


def analyse(
    run: OpenRun, tables: Iterable[str], steps: Iterable[int], on_steps: Callable[[list[int]], None] = lambda done: None
) -> int:
    """Computes what is pending and writes it in batches of checkpoints; returns the number of cells computed.

    Args:
        on_steps: called with the steps whose rows have just been published (current ones first).
    """
    tables, steps = list(tables), list(steps)
    todo = pending(run, tables, steps)
    by_step: dict[int, list[tuple[str, str]]] = {step: [] for step in steps}
    for table, cells in todo.items():
        for step, item in cells:
            by_step[step].append((table, item))
    current = [step for step in steps if not by_step[step]]
    if current:
        on_steps(current)
    work = [step for step in steps if by_step[step]]
    with computing(run.spec.training):
        analyser = Analyser(run)
        for begin in range(0, len(work), _FLUSH_STEPS):
            chunk = work[begin : begin + _FLUSH_STEPS]
            for step in chunk:
                analyser.add(step, by_step[step])
            analyser.flush()
            on_steps(chunk)
    return sum(len(cells) for cells in todo.values())


@dataclass
class Analyser:
    """Computes cells of one checkpoint at a time and keeps their rows until they are flushed."""

    run: OpenRun
    _rows: dict[str, dict[Cell, dict[str, list[Any]]]] = field(default_factory=dict)

    def add(self, step: int, cells: list[tuple[str, str]]) -> None:
        """Computes the given (table, item) cells of a checkpoint."""
        theta = self.run.state(step).theta
        self.run.trainer.flat.load(theta)
        patterns: list[Tensor] | None = None
        tensors: dict[str, Vector] = {}
        for table, item in cells:
            if table == "mechanism_values":
                with torch.no_grad():
                    value = float(MECHANISMS[item].value(self.run.trainer.flat.model, self.run.tokens.probe))
                self._keep(table, step, item, {"mechanism": [item], "value": [value]})
            elif table == "head_scores":
                patterns = self._patterns(theta) if patterns is None else patterns
                self._keep(table, step, item, self._head_scores(item, patterns))
            else:
                tensors[item] = self._gradient(step, item)
        if tensors:
            self._keep_gradients(step, tensors)

    def flush(self) -> None:
        """Publishes the kept rows, one commit per table."""
        for table, cells in self._rows.items():
            description = TABLES[table]
            names = [column.name for column in description.columns]
            columns: dict[str, list[Any]] = {name: [] for name in [*names, "input_fingerprint", "data_version"]}
            steps = sorted({step for step, _ in cells})
            fingerprints = wanted(self.run, table, steps)
            for cell, rows in cells.items():
                count = len(next(iter(rows.values())))
                rows = {"run": [self.run.spec.run] * count, "step": [cell[0]] * count, **rows}
                version = content_version(description, rows)
                for name, values in (rows | provenance_columns(count, fingerprints[cell], version)).items():
                    columns[name].extend(values)
            assert description.item is not None, "analysis tables have items"
            items = sorted({item for _, item in cells})
            for group_steps, group_items in _rectangles(set(cells), items):
                keep = [
                    i
                    for i, (s, it) in enumerate(zip(columns["step"], columns[description.item], strict=True))
                    if s in group_steps and it in group_items
                ]
                self.run.store.write(
                    table,
                    {name: [values[i] for i in keep] for name, values in columns.items()},
                    replace={
                        "run": [self.run.spec.run],
                        "step": sorted(group_steps),
                        description.item: sorted(group_items),
                    },
                    code_version=CODE_VERSIONS[table],
                )
        self._rows = {}

    def _keep(self, table: str, step: int, item: str, rows: dict[str, list[Any]]) -> None:
        self._rows.setdefault(table, {})[step, item] = rows

    def _patterns(self, theta: Vector) -> list[Tensor]:
        """Attention patterns of every layer on the random probe, through TransformerBridge."""
        flat, wrapped = self.run.bridged
        flat.load(theta)
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(self.run.spec.model.layers)]
        with torch.no_grad():
            _, cache = wrapped.run_with_cache(self.run.tokens.probe.random.tokens, names_filter=names)
        return [cache[name] for name in names]

    def _head_scores(self, detector: str, patterns: list[Tensor]) -> dict[str, list[Any]]:
        with torch.no_grad():
            scores = DETECTORS[detector].score(self.run.bridged[1], patterns, self.run.tokens.probe)
        layers, heads = scores.shape
        return {
            "layer": [layer for layer in range(layers) for _ in range(heads)],
            "head": list(range(heads)) * layers,
            "detector": [detector] * (layers * heads),
            "value": scores.double().flatten().tolist(),
        }

    def _gradient(self, step: int, name: str) -> Vector:
        trainer = self.run.trainer
        if name == BATCH:
            examples = trainer.batch(step)
            losses = example_losses(trainer.flat.model, trainer.tokens(examples))
            weights = trainer.weights_at(step, examples)
            return trainer.flat.gradient((losses if weights is None else losses * weights).mean())
        return mechanism_gradient(name, trainer.flat, self.run.tokens.probe)

    def _keep_gradients(self, step: int, tensors: dict[str, Vector]) -> None:
        run, parts = self.run, list(self.run.components.names)
        count = len(parts)
        norms = {name: run.components.norms(vector).tolist() for name, vector in tensors.items()}
        fingerprints = wanted(run, "gradients", [step])
        described: dict[str, list[Any]] = {
            "run": [run.spec.run] * count * len(norms),
            "step": [step] * count * len(norms),
            "gradient": [name for name in norms for _ in parts],
            "component": parts * len(norms),
            "value": [value for values in norms.values() for value in values],
            "input_fingerprint": [fingerprints[step, name] for name in norms for _ in parts],
        }
        content = save(
            {
                f"{name}.{part}": tensor.contiguous()
                for name, vector in tensors.items()
                for part, tensor in run.trainer.flat.named(vector).items()
            },
            metadata=registration("gradients", described),
        )
        blob = run.store.put_blob(f"gradients/run={run.spec.run}/step={step:08d}", "gradients.safetensors", content)
        for name, values in norms.items():
            self._keep(
                "gradients",
                step,
                name,
                {
                    "gradient": [name] * count,
                    "component": parts,
                    "value": values,
                    "uri": [blob.uri] * count,
                    "bytes": [blob.bytes] * count,
                    "sha256": [blob.sha256] * count,
                },
            )


def _rectangles(cells: set[Cell], items: list[str]) -> list[tuple[set[int], set[str]]]:
    """Groups cells into (steps × items) blocks, because a commit replaces whole blocks. Usually there is one."""
    groups: dict[frozenset[str], set[int]] = {}
    for step in {step for step, _ in cells}:
        groups.setdefault(frozenset(item for item in items if (step, item) in cells), set()).add(step)
    return [(steps, set(names)) for names, steps in groups.items()]
