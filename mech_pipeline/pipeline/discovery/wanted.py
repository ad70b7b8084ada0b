"""Which cells of movement, discovery and atoms there should be, and what each would be made from now."""

from collections.abc import Iterable
from typing import Any

from mech_pipeline.attribution.per_example.names_version import names_version
from mech_pipeline.pipeline.cells import Cell, combined_version, pending_cells, stored_versions
from mech_pipeline.pipeline.found import FoundRun
from mech_pipeline.spec.fingerprint import fingerprint

MOVEMENT_VERSION = "2"
DISCOVERY_VERSION = "3"
NEEDS_VERSION = "1"
ATOMS_VERSION = "1"


def windows(run: FoundRun) -> dict[int, int]:
    """First step of each window between planned checkpoints that are there, by its last."""
    return {end: begin for begin, end in run.windows(max(run.checkpoints, default=0))}


def wanted_movement(run: FoundRun, steps: Iterable[int]) -> dict[Cell, str]:
    """Fingerprints of the windows that end at these steps. No window ends at step 0."""
    asked, begins = run.spec.discovery, windows(run)
    made_by = ["movement", MOVEMENT_VERSION, asked.path, _drawn(run), run.training]
    made_by += names_version(run.spec.model, neurons=False)
    cells = {}
    for end in steps:
        if end in begins:
            states = [run.checkpoint_version(begins[end]), run.checkpoint_version(end)]
            cells[Cell("token_movement", run.spec.run, end)] = fingerprint(*made_by, states)
    return cells


def _drawn(run: FoundRun) -> list[Any]:
    """What the probe's sequences are drawn by, and from."""
    asked, text = run.spec.discovery, [run.artifacts.get(name, "") for name in ("corpus", "tokenizer")]
    return [asked.tokens, asked.seed, run.spec.data.pool_slice(), list(run.spec.data.mixture), text]


def pending_movement(run: FoundRun, steps: Iterable[int]) -> list[Cell]:
    """The windows that must be computed; a cell counts only together with its losses."""
    return pending_cells(run.store, wanted_movement(run, steps), also=["token_losses"])


def wanted_discovery(run: FoundRun) -> dict[Cell, str]:
    """The one cell of a run's discoveries, from all its windows; by needs from all its checkpoints."""
    asked = run.spec.discovery.of_tokens
    if run.spec.discovery.moves:
        cells = wanted_movement(run, run.planned)
        stored = stored_versions(run.store, "token_movement", run.spec.run)
        seen = [combined_version(stored[cell] for cell in cells if cell in stored)]
    else:
        seen = [run.checkpoint_version(step) for step in run.planned if step in run.checkpoints]
        seen += [fingerprint(NEEDS_VERSION, _drawn(run), run.training)]
    made_from = fingerprint("discovery", DISCOVERY_VERSION, asked, *seen, list(run.planned))
    return {Cell("discovery_tokens", run.spec.run): made_from}


def wanted_atoms(run: FoundRun) -> dict[Cell, str]:
    """The one cell of a run's atoms, from all its windows."""
    states = [run.checkpoint_version(step) for step in run.checkpoints if step in run.planned]
    asked = [run.spec.discovery.atoms, run.spec.discovery.atom_examples]
    made_by = ["atoms", ATOMS_VERSION, asked, run.training, list(run.planned)]
    made_by += names_version(run.spec.model, neurons=False)
    return {Cell("atom_windows", run.spec.run): fingerprint(*made_by, states)}
