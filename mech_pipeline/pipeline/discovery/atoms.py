"""Atoms of a run's applied updates, window after window from the first to the last, and the tracks that they form."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mech_pipeline.attribution.ledger.ledger import replay_with_factors
from mech_pipeline.attribution.per_example.capture import Factors
from mech_pipeline.attribution.per_example.factor_sketches import STREAMS, WIDTH, FactorSketcher
from mech_pipeline.attribution.per_example.summed_gradient import SummedGradient
from mech_pipeline.discovery.atoms import Atom, Found, NoAtoms, atoms
from mech_pipeline.discovery.tracks import Link, Track, links, tracks
from mech_pipeline.discovery.update_rows import batches_of, group_displacement, reach, window_rows
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import Block, write
from mech_pipeline.pipeline.discovery.wanted import ATOMS_VERSION, wanted_atoms, windows
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.progress import Emit, Report, ignore_progress
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.training.device import computing
from mech_pipeline.training.loop import Update
from mech_pipeline.training.update.optimizer import Vector

SHARE = 0.8
FURTHEST = 8
"""Members of an atom whose movement is split by component: it costs as much as their share of the backward pass."""


@dataclass(frozen=True)
class Window:
    """What was found in a window.

    Attributes:
        examples: pool indices of its rows.
        found: its rows are let go when the next window is linked.
        linked: atoms of the window before that go on.
        components: of each atom, those that carry 80 % of what its furthest members together moved, squared.
    """

    begin: int
    end: int
    examples: NDArray[np.int64]
    found: Found
    linked: list[Link]
    components: list[str]


def compute_atoms(run: OpenRun, report: Report = ignore_progress, emit: Emit = lambda line: None) -> int:
    """Finds the atoms of all windows and stores them; returns the number of cells.

    Args:
        report: called with the number of windows done.
        emit: told how much memory it takes, before it begins, and which windows have none.

    Raises:
        MechError: no window can have atoms; nothing is written.
    """
    emit(memory_line(run))
    with computing(run.spec.training):
        seen, refused = _look(run, report)
    if not seen:
        problem = refused[0] if refused else MechError("it has no window between checkpoints", "plan at least two")
        raise MechError(f"atoms of run {run.spec.run}: {problem.problem}", problem.next_step)
    if refused:
        emit(f"atoms {run.spec.run}: {len(refused)} windows have none, the first because {refused[0].problem}")
    _store(run, seen)
    return 1


def memory_line(run: OpenRun) -> str:
    """What will be held: states and captured activations of the longest window, and the rows of two."""
    flat, spec = run.trainer.flat, run.spec
    updates = max((end - begin for end, begin in windows(run).items()), default=0)
    states = 4 * 4 * (updates + 1) * flat.vector.numel()
    widths = sum(sum(p.shape) for p in flat.parameters if p.dim() == 2)
    activations = 4 * updates * spec.training.batch * spec.data.context * widths
    rows = 4 * 2 * STREAMS * updates * spec.training.batch * WIDTH
    return (
        f"atoms {spec.run}: up to {2 * spec.discovery.atoms} atoms of {spec.discovery.atom_examples} examples a window; holds "
        f"{updates + 1} states, {states / 1e6:.0f} MB, the activations of {updates} updates, about {activations / 1e6:.0f} MB, and "
        f"{rows / 1e6:.0f} MB of sketches: {(states + activations + rows) / 1e6:.0f} MB in all"
    )


def _look(run: OpenRun, report: Report) -> tuple[list[Window], list[NoAtoms]]:
    """The windows that can have atoms, and why the others cannot."""
    find = _Finder(run)
    seen: list[Window] = []
    refused: list[NoAtoms] = []
    for done, (end, begin) in enumerate(windows(run).items(), start=1):
        try:
            seen.append(find.window(begin, end, seen[-1].found if seen else None))
        except NoAtoms as error:
            refused.append(error)
        else:
            for before in seen[-2:-1]:
                seen[-2] = replace(before, found=replace(before.found, rows=before.found.rows[:0]))
        report(done)
    return seen, refused


class _Finder:
    """Finds the atoms of one window of a run after another."""

    def __init__(self, run: OpenRun) -> None:
        self._run = run
        self._sketcher = FactorSketcher(run.trainer.flat, run.spec.seed)
        self._summed = SummedGradient(run.trainer.flat)
        self._generator = numpy_generator(run.spec.seed, "atoms")

    def window(self, begin: int, end: int, before: Found | None) -> Window:
        """The atoms of a window, linked to those of the one before.

        Raises:
            NoAtoms: it has too few examples, or did not move.
        """
        run, asked = self._run, self._run.spec.discovery
        updates, factors = replay_with_factors(run.trainer, run.state(begin), end)
        run.verify(updates[-1].after)
        if torch.equal(updates[0].before.theta, updates[-1].after.theta):
            raise NoAtoms("no weight moved", "look at the learning rate")
        rows = window_rows(self._sketcher, run.spec.optimizer, updates, factors)
        applied, raw = rows.applied.cpu().numpy(), rows.raw.cpu().numpy()
        found = atoms(applied, raw, asked.atoms, asked.atom_examples, self._generator)
        components = self._components(updates, factors, found.atoms)
        linked = [] if before is None else links(before, found)
        return Window(begin, end, rows.examples.numpy(), found, linked, components)

    def _components(self, updates: Sequence[Update], factors: Sequence[Factors], found: Sequence[Atom]) -> list[str]:
        """Of each atom, the components that carry most of what its furthest members together moved, squared, with shares."""
        _, batches = batches_of(updates)
        moves = reach(self._run.spec.optimizer, updates)
        return [
            self._shares(
                group_displacement(
                    self._summed, updates, factors, moves, batches, torch.from_numpy(atom.members[:FURTHEST])
                )
            )
            for atom in found
        ]

    def _shares(self, moved: Vector) -> str:
        parts = self._run.components.sums(moved.double().square()).cpu().numpy()
        order, shares = np.argsort(-parts, kind="stable"), parts / parts.sum()
        count = int(np.argmax(np.cumsum(shares[order]) >= SHARE)) + 1
        return ", ".join(f"{self._run.components.names[index]} {shares[index]:.2f}" for index in order[:count])


def _store(run: OpenRun, seen: list[Window]) -> None:
    ((cell, made_from),) = wanted_atoms(run).items()
    coherences = [[atom.coherence for atom in window.found.atoms] for window in seen]
    found = tracks(coherences, [window.linked for window in seen[1:]])
    track = {at: number for number, one in enumerate(found) for at in one.atoms}
    tables = {
        "atoms": _atom_columns(seen, track),
        "atom_examples": _example_columns(seen, run.tokens.example_ids),
        "atom_tracks": _track_columns(seen, found),
    }
    for table, columns in tables.items():
        if found:
            write(run.store, [Block(cell.of(table), columns, made_from)], ATOMS_VERSION)
        else:
            run.store.delete(table, f"run = '{run.spec.run}'", code_version=ATOMS_VERSION)
    write(run.store, [Block(cell, _window_columns(seen), made_from)], ATOMS_VERSION)


def _window_columns(seen: list[Window]) -> dict[str, list[Any]]:
    return {
        "number": list(range(len(seen))),
        "begin": [window.begin for window in seen],
        "step": [window.end for window in seen],
        "examples": [len(window.examples) for window in seen],
        "atoms": [len(window.found.atoms) for window in seen],
        "first_share": [window.found.first for window in seen],
        "first_share_by_chance": [window.found.first_by_chance for window in seen],
    }


def _atom_columns(seen: list[Window], track: dict[tuple[int, int], int]) -> dict[str, list[Any]]:
    every = [(number, place, atom) for number, w in enumerate(seen) for place, atom in enumerate(w.found.atoms)]
    overlap = {(number, link.after): link.overlap for number, window in enumerate(seen) for link in window.linked}
    return {
        "atom": list(range(len(every))),
        "track": [track[number, place] for number, place, _ in every],
        "step": [seen[number].end for number, _, _ in every],
        "examples": [len(atom.members) for _, _, atom in every],
        "share": [atom.share for _, _, atom in every],
        "coherence": [atom.coherence for _, _, atom in every],
        "by_chance": [atom.by_chance for _, _, atom in every],
        "by_chance_most": [atom.by_chance_most for _, _, atom in every],
        "is_coherent": [atom.is_coherent for _, _, atom in every],
        "overlap": [overlap.get((number, place)) for number, place, _ in every],
        "components": [seen[number].components[place] for number, place, _ in every],
    }


def _example_columns(seen: list[Window], ids: NDArray[Any]) -> dict[str, list[Any]]:
    every = [(window, atom) for window in seen for atom in window.found.atoms]
    return {
        "atom": [number for number, (_, atom) in enumerate(every) for _ in atom.members],
        "example_id": [str(ids[index]) for window, atom in every for index in window.examples[atom.members]],
        "place": [place for _, atom in every for place in range(len(atom.members))],
        "along": [float(cosine) for _, atom in every for cosine in atom.along],
    }


def _track_columns(seen: list[Window], found: list[Track]) -> dict[str, list[Any]]:
    places = [next(at for at in one.atoms if at[0] == one.peak) for one in found]
    peaks = [seen[window].found.atoms[place] for window, place in places]
    return {
        "track": list(range(len(found))),
        "birth": [seen[one.birth].end for one in found],
        "peak": [seen[one.peak].end for one in found],
        "death": [seen[one.death].end for one in found],
        "windows": [len(one.atoms) for one in found],
        "coherence": [peak.coherence for peak in peaks],
        "by_chance": [peak.by_chance for peak in peaks],
        "components": [seen[window].components[place] for window, place in places],
    }
