"""What made the MLP's neurons, over the windows that the experiment names. A cell is one window, in three tables."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mech_pipeline.attribution.ledger.neurons import NeuronAccount, effective_tokens, neuron_account
from mech_pipeline.attribution.per_example.components import Components, components_of
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.ablation.neuron_ablation import Effect, ablated_increase, ablation_effect, matched_tokens
from mech_pipeline.mechanisms.source import ProbeSource
from mech_pipeline.pipeline.analysis.late import late_steps
from mech_pipeline.pipeline.analysis.wanted import (
    NEURON_TABLES,
    NEURONS_VERSION,
    neuron_windows,
    pending_neurons,
    wanted_neurons,
    window_bounds,
)
from mech_pipeline.pipeline.cells import Block, Cell, write
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Report, ignore_progress
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.training.device import computing

HELD_OUT = 128
BEFORE = 12
TOLERANCE = 1e-3
"""Largest imbalance of a part in float32: rounding of stored weights, where a part moved little; a missing term leaves more."""
Rows = dict[str, list[Any]]


def compute_neurons(
    run: OpenRun,
    steps: Iterable[int],
    on_steps: Callable[[list[int]], None] = lambda done: None,
    report: Report = ignore_progress,
) -> int:
    """Computes what is pending, window by window; returns their number.

    Args:
        on_steps: called with the ends of windows whose rows are stored (current ones first).
        report: called with the number of updates done.

    Raises:
        MechError: what moved a part does not sum to how far it moved.
    """
    steps = list(steps)
    cells, todo = wanted_neurons(run, steps), pending_neurons(run, steps)
    done = 0
    with computing(run.spec.training):
        for end in late_steps(cells, todo, on_steps):
            begin = neuron_windows(run)[end]
            account = neuron_account(
                run.trainer,
                _components(run),
                run.state,
                window_bounds(run, begin, end),
                vocabulary=run.tokens.vocabulary,
                contexts=run.spec.neurons.contexts,
                report=lambda updates, before=done: report(before + updates),  # type: ignore[misc]
            )
            _check(run, begin, end, account)
            _store(run, begin, end, account, cells[Cell("neurons", run.spec.run, end)])
            done += end - begin
    return len(todo)


def _components(run: OpenRun) -> Components:
    return components_of(run.trainer.flat, run.spec.model.heads, run.spec.model.key_value_heads, neurons=True)


def _check(run: OpenRun, begin: int, end: int, account: NeuronAccount) -> None:
    """Parts that moved by less than a thousandth of the one that moved furthest are rounding."""
    moved = account.displacement > account.displacement.max() / 1000
    worst = float(account.imbalance()[moved].abs().max()) if bool(moved.any()) else 0.0
    if worst > TOLERANCE:
        raise MechError(
            f"neurons of run {run.spec.run}, updates {begin} to {end}: what moved a part misses how far it moved by {worst:.1e}"
            f" of it ({TOLERANCE:.0e} is allowed)",
            "`mech verify`; if the store is whole this is a bug",
        )


def _store(run: OpenRun, begin: int, end: int, account: NeuronAccount, made_from: str) -> None:
    parts = [_part(name) for name in account.names]
    tokens = _token_rows(run, account)
    rows = {
        "neurons": _neuron_rows(run, end, account, parts, tokens),
        "neuron_tokens": _of_parts(parts, tokens),
        "neuron_contexts": _of_parts(parts, _context_rows(run, account)),
    }
    for table in NEURON_TABLES:
        columns = {"begin": [begin] * len(rows[table]["layer"]), **rows[table]}
        write(run.store, [Block(Cell(table, run.spec.run, end), columns, made_from)], NEURONS_VERSION)


def _part(name: str) -> tuple[int, int, str]:
    """`L0N3.in` → (0, 3, "in")."""
    place, part = name.split(".")
    layer, neuron = place.removeprefix("L").split("N")
    return int(layer), int(neuron), part


def _of_parts(parts: list[tuple[int, int, str]], of_each: list[Rows]) -> Rows:
    """Rows of all parts one after another, with their keys and places."""
    counts = [len(next(iter(rows.values()))) for rows in of_each]
    found: Rows = {
        key: [part[index] for part, count in zip(parts, counts, strict=True) for _ in range(count)]
        for index, key in enumerate(("layer", "neuron", "part"))
    }
    found["place"] = [place for count in counts for place in range(count)]
    return found | {name: [value for rows in of_each for value in rows[name]] for name in of_each[0]}


def _token_rows(run: OpenRun, account: NeuronAccount) -> list[Rows]:
    """The tokens with the largest positive scores of each part."""
    count = min(run.spec.neurons.tokens, len(account.tokens))
    best, chosen = account.tokens.topk(count, dim=0)
    total = account.tokens.clamp_min(0).sum(0)
    found = []
    for part in range(len(account.names)):
        positive = int((best[:, part] > 0).sum())
        ids = chosen[:positive, part].tolist()
        found.append(
            {
                "token": ids,
                "text": [_text(run, [token]) for token in ids],
                "score": best[:positive, part].tolist(),
                "share": (best[:positive, part] / total[part]).tolist(),
            }
        )
    return found


def _context_rows(run: OpenRun, account: NeuronAccount) -> list[Rows]:
    """The single positions with the largest positive scores of each part."""
    at, found = account.contexts, []
    for part in range(len(account.names)):
        chosen = [place for place in range(len(at.score)) if float(at.score[place, part]) > 0]
        examples = at.example[chosen, part]
        rows = run.trainer.tokens(examples).tolist() if chosen else []
        positions = at.position[chosen, part].tolist()
        found.append(
            {
                "score": at.score[chosen, part].tolist(),
                "update_step": at.update[chosen, part].tolist(),
                "example_id": [str(run.tokens.example_ids[index]) for index in examples.tolist()],
                "position": positions,
                "before": [_text(run, row[max(0, p - BEFORE) : p]) for row, p in zip(rows, positions, strict=True)],
                "text": [_text(run, row[p : p + 1]) for row, p in zip(rows, positions, strict=True)],
                "after": [_text(run, row[p + 1 : p + 2]) for row, p in zip(rows, positions, strict=True)],
            }
        )
    return found


def _text(run: OpenRun, tokens: list[int]) -> str:
    origin = run.tokens.probe.origin
    assert origin is not None, "a run's probe knows its tokenizer"
    return origin.tokenizer.decode(tokens, skip_special_tokens=False)


def _neuron_rows(
    run: OpenRun, end: int, account: NeuronAccount, parts: list[tuple[int, int, str]], tokens: list[Rows]
) -> Rows:
    effects = _effects(run, end, account, parts, tokens)
    effective = effective_tokens(account.tokens)
    return {
        "layer": [layer for layer, _, _ in parts],
        "neuron": [neuron for _, neuron, _ in parts],
        "part": [part for _, _, part in parts],
        "displacement": account.displacement.tolist(),
        "examples": account.tokens.sum(0).tolist(),
        "weight_decay": account.weight_decay.tolist(),
        "momentum": account.momentum.tolist(),
        "imbalance": account.imbalance().tolist(),
        "effective_tokens": [None if value != value else value for value in effective.tolist()],
        "effect_attributed": [None if effect is None else effect.attributed for effect in effects],
        "effect_matched": [None if effect is None else effect.matched for effect in effects],
        "effect_low": [None if effect is None else effect.low for effect in effects],
        "effect_high": [None if effect is None else effect.high for effect in effects],
    }


def _effects(
    run: OpenRun, end: int, account: NeuronAccount, parts: list[tuple[int, int, str]], tokens: list[Rows]
) -> list[Effect | None]:
    """Of the neurons that moved furthest, on held-out text, in the state at the end of the window."""
    read = run.tokens.probe.of("neurons", _held_out)
    counts = torch.bincount(read[:, :-1].flatten(), minlength=run.tokens.vocabulary)
    flat = run.trainer.flat
    flat.load(run.state(end).theta)
    furthest = _furthest(account.displacement, parts, run.spec.neurons.ablated)
    increases: dict[tuple[int, int], Tensor] = {}
    effects: list[Effect | None] = []
    for part, rows in zip(parts, tokens, strict=True):
        chosen = [token for token in rows["token"] if counts[token] > 0]
        if part[:2] not in furthest or not chosen or 2 * len(chosen) > int((counts > 0).sum()):
            effects.append(None)
            continue
        if part[:2] not in increases:
            increases[part[:2]] = ablated_increase(flat.model, read.to(flat.vector.device), *part[:2]).cpu()
        generator = numpy_generator(run.spec.seed, f"neurons:{end}:{part}")
        matched = matched_tokens(counts, chosen, generator)
        effects.append(ablation_effect(increases[part[:2]], read, chosen, matched, generator))
    return effects


def _furthest(displacement: Tensor, parts: list[tuple[int, int, str]], count: int) -> set[tuple[int, int]]:
    order = np.argsort(-displacement.numpy(), kind="stable")
    return set(list(dict.fromkeys(parts[place][:2] for place in order))[:count])


def _held_out(source: ProbeSource) -> Tensor:
    return source.held_out_windows(HELD_OUT)
