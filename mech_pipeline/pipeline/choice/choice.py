"""Follows a run's recipe: rows of `choices`, and the weights or the order that its training reads."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_arrays

from mech_pipeline.causal.choosing import Examples, Numbers, chosen_count, extreme
from mech_pipeline.causal.doing import rearrangement, windows
from mech_pipeline.causal.matching import Balance, balance, matched_examples
from mech_pipeline.data.example_weights import LAST
from mech_pipeline.pipeline.cells import Block, Cell, pending_cells, write
from mech_pipeline.pipeline.choice.candidates import Candidates
from mech_pipeline.pipeline.choice.wanted import CODE_VERSION, wanted
from mech_pipeline.pipeline.stage import View
from mech_pipeline.pipeline.tokens.artifacts import Artifact, write_artifact
from mech_pipeline.progress import Emit
from mech_pipeline.store.store import Store


@dataclass(frozen=True)
class Chosen:
    """What a recipe came to.

    Attributes:
        examples: places in the pool, the most extreme first.
        scores: of these; none where it was chance, or a match.
        stands_for: the examples that they are matched to, in the same order; none: not matched.
        balances: of a match.
        instead: what stands in for each of them from now on; none: they are not replaced.
    """

    examples: Examples
    scores: Numbers | None = None
    stands_for: Examples | None = None
    balances: tuple[Balance, ...] = ()
    instead: Examples | None = None


def compute_choice(view: View, emit: Emit = lambda line: None) -> int:
    """Chooses, where the choice is not current; returns how many cells were made.

    Raises:
        MechError: too few examples to choose from or to match with; nothing is written then.
    """
    cells, recipe, spec = wanted(view), view.spec.choice, view.spec
    if recipe is None or not pending_cells(view.store, cells):
        return 0
    candidates = Candidates(view.store, recipe, spec)
    chosen = follow(candidates)
    emit(f"{spec.run} chooses {len(chosen.examples)} of {len(candidates.examples)} examples: {recipe.do}")
    for each in chosen.balances:
        if not each.is_balanced:
            emit(f"not balanced in {each.name}: {each.difference:+.2f} standard deviations ({each.before:+.2f} before)")
    made_from = cells[Cell("choices", spec.run)]
    _write_rows(view.store, candidates, chosen, Cell("choices", spec.run), made_from)
    _write_treatment(view.store, candidates, chosen, spec.run, made_from)
    return 1


def follow(candidates: Candidates) -> Chosen:
    """The examples that a recipe comes to for a run."""
    found = _examples(candidates)
    if candidates.recipe.do != "replace":
        return found
    taken = found.examples if found.stands_for is None else np.concatenate([found.examples, found.stands_for])
    instead, balances = _alike(candidates, found.examples, np.setdiff1d(candidates.examples, taken), "replaced")
    return replace(found, instead=instead, balances=found.balances or balances)


def _examples(candidates: Candidates) -> Chosen:
    recipe = candidates.recipe
    if recipe.matched is not None:
        return _matched(candidates, _examples(Candidates(candidates.store, recipe.matched, candidates.spec)).examples)
    places, scores = candidates.examples, candidates.scores()
    count = chosen_count(len(places), recipe.share, recipe.count)
    if scores is None:
        return Chosen(candidates.generator("random").choice(places, size=count, replace=False))
    found = extreme(scores, places, count, recipe.end)
    return Chosen(found, scores[found])


def _matched(candidates: Candidates, chosen: Examples) -> Chosen:
    found, balances = _alike(candidates, chosen, candidates.examples, "matched")
    return Chosen(found, None, chosen, balances)


def _alike(
    candidates: Candidates, chosen: Examples, places: Examples, purpose: str
) -> tuple[Examples, tuple[Balance, ...]]:
    """Others of these places, each like one of the chosen."""
    recipe = candidates.recipe
    groups = candidates.groups if "kind" in recipe.alike else np.zeros_like(candidates.groups)
    alike = {str(name): candidates.characteristic(name) for name in recipe.alike if name != "kind"}
    found = matched_examples(chosen, places, groups, alike, candidates.generator(purpose))
    return found, tuple(balance(chosen, found, places, alike))


def _write_rows(store: Store, candidates: Candidates, chosen: Chosen, cell: Cell, made_from: str) -> None:
    ids, count = candidates.first.tokens.example_ids, len(chosen.examples)
    if chosen.balances:
        columns = {
            "characteristic": [each.name for each in chosen.balances],
            "chosen": [each.chosen for each in chosen.balances],
            "matched": [each.matched for each in chosen.balances],
            "difference": [each.difference for each in chosen.balances],
            "before": [each.before for each in chosen.balances],
        }
        write(store, [Block(cell.of("choice_balance"), columns, made_from)], CODE_VERSION)
    spans = windows(candidates.recipe, candidates.sources[0].step)
    repeat = len(spans)
    stands_for, replaced_by = (
        [None] * count if others is None else [str(ids[i]) for i in others]
        for others in (chosen.stands_for, chosen.instead)
    )
    scores = [None] * count if chosen.scores is None else chosen.scores.tolist()
    rows = {
        "example_id": np.repeat([str(ids[i]) for i in chosen.examples], repeat).tolist(),
        "first_update": [first for first, _, _ in spans] * count,
        "last_update": [None if last == LAST else last for _, last, _ in spans] * count,
        "weight": [weight for _, _, weight in spans] * count,
        "rank": np.repeat(np.arange(1, count + 1), repeat).tolist(),
        "score": [score for score in scores for _ in spans],
        "stands_for": [name for name in stands_for for _ in spans],
        "replaced_by": [name for name in replaced_by for _ in spans],
    }
    write(store, [Block(cell, rows, made_from)], CODE_VERSION)


def _write_treatment(store: Store, candidates: Candidates, chosen: Chosen, run: str, made_from: str) -> None:
    """What training reads: the artifact `weights` or `order`."""
    name = candidates.recipe.artifact
    arrays = _order(candidates, chosen) if name == "order" else _weights(candidates, chosen)
    blob = store.put_blob("tokens", f"{name}.safetensors", save_arrays(arrays))
    write_artifact(store, run, name, Artifact(blob, len(arrays["example"])), made_from)


def _order(candidates: Candidates, chosen: Chosen) -> dict[str, Examples]:
    """The fields of a `Rearrangement`."""
    change = rearrangement(candidates.recipe, candidates.sources[0].step, chosen.examples, chosen.instead)
    return {name: np.atleast_1d(np.asarray(value, dtype=np.int64)) for name, value in vars(change).items()}


def _weights(candidates: Candidates, chosen: Chosen) -> dict[str, NDArray]:
    """What a weights file becomes: rows in order of (example, first)."""
    spans = windows(candidates.recipe, candidates.sources[0].step)
    examples = np.sort(chosen.examples)
    return {
        "example": np.repeat(examples, len(spans)),
        "weight": np.tile([weight for _, _, weight in spans], len(examples)).astype(np.float64),
        "first": np.tile([first for first, _, _ in spans], len(examples)).astype(np.int64),
        "last": np.tile([last for _, last, _ in spans], len(examples)).astype(np.int64),
    }
