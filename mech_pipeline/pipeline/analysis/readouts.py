"""Which tokens the movements of neurons and heads promote and suppress, over the windows that the experiment names.

Two checkpoints' weights are all that is read, so it works on runs from outside as well. A cell is one window.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from mech_pipeline.mechanisms.anatomy import head_slice, layer_count, neuron_weights, output_weights
from mech_pipeline.mechanisms.readouts.vocabulary import Lens, Readout, head_readout, lens, neuron_readout
from mech_pipeline.pipeline.analysis.late import late_steps
from mech_pipeline.pipeline.analysis.wanted import READOUTS, READOUTS_VERSION, wanted_readouts
from mech_pipeline.pipeline.cells import Block, Cell, pending_cells, write
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.training.device import computing

Rows = dict[str, list[Any]]


def compute_readouts(
    run: OpenRun,
    steps: Iterable[int],
    on_steps: Callable[[list[int]], None] = lambda done: None,
    report: Report = ignore_progress,
) -> int:
    """Computes what is pending of the windows that end at these steps; returns the number of cells."""
    cells = wanted_readouts(run, steps)
    begins = {end: begin for begin, end in run.spec.readouts.windows}
    late = pending_cells(run.store, cells)
    with computing(run.spec.training):
        for done, step in enumerate(late_steps(cells, late, on_steps), start=1):
            cell = Cell(READOUTS, run.spec.run, step)
            rows = {"begin": [], **_rows(run, begins[step], step)}
            rows["begin"] = [begins[step]] * len(rows["layer"])
            write(run.store, [Block(cell, rows, cells[cell])], READOUTS_VERSION)
            report(done)
    return len(late)


def _rows(run: OpenRun, begin: int, end: int) -> Rows:
    """All rows of a window."""
    flat, asked = run.trainer.flat, run.spec.readouts
    flat.load(run.weights(begin))
    before = _written(flat.model)
    flat.load(run.weights(end))
    after, read = _written(flat.model), lens(flat.model, run.tokens.vocabulary)
    found: list[Rows] = []
    for layer, ((heads_before, before_neurons), (heads_after, after_neurons)) in enumerate(
        zip(before, after, strict=True)
    ):
        heads = head_readout(read, heads_after - heads_before, asked.tokens)
        found.append(_of(run, layer, "head", range(len(heads.moved)), heads))
        if before_neurons is not None and after_neurons is not None and asked.neurons:
            found.append(_furthest(run, layer, read, after_neurons - before_neurons))
    return {name: [value for rows in found for value in rows[name]] for name in found[0]}


def _written(model: torch.nn.Module) -> list[tuple[Tensor, Tensor | None]]:
    """Output weights of the heads, [head, d_model, d_head], and of the neurons of every layer; copies."""
    found = []
    for layer in range(layer_count(model)):
        joined = output_weights(model, layer).detach()
        width = head_slice(model, layer, 0).stop
        neurons = neuron_weights(model, layer)
        heads = joined.unflatten(1, (-1, width)).transpose(0, 1).clone()
        found.append((heads, None if neurons is None else neurons.detach().clone()))
    return found


def _furthest(run: OpenRun, layer: int, read: Lens, moved: Tensor) -> Rows:
    """The neurons of a layer that moved furthest."""
    count = min(run.spec.readouts.neurons, moved.shape[1])
    chosen = torch.argsort(torch.linalg.vector_norm(moved, dim=0), descending=True, stable=True)[:count].sort().values
    return _of(run, layer, "neuron", chosen.tolist(), neuron_readout(read, moved[:, chosen], run.spec.readouts.tokens))


def _of(run: OpenRun, layer: int, part: str, units: Iterable[int], found: Readout) -> Rows:
    rows: Rows = {
        name: [] for name in ("layer", "part", "unit", "moved", "share", "direction", "place", "token", "text", "logit")
    }
    for index, unit in enumerate(units):
        for direction, tokens, logits in (
            ("promoted", found.promoted[index].tolist(), found.up[index].tolist()),
            ("suppressed", found.suppressed[index].tolist(), found.down[index].tolist()),
        ):
            for place, (token, logit) in enumerate(zip(tokens, logits, strict=True)):
                row = (layer, part, unit, float(found.moved[index]), float(found.share[index]), direction, place)
                for name, value in zip(rows, (*row, token, _text(run, token), logit), strict=True):
                    rows[name].append(value)
    return rows


def _text(run: OpenRun, token: int) -> str:
    origin = run.tokens.probe.origin
    assert origin is not None, "a run's probe knows its tokenizer"
    return origin.tokenizer.decode([token], skip_special_tokens=False)
