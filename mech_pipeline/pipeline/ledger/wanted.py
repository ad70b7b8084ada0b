"""Which cells of the ledger there should be, and what each would be made from now.

A window's `value_later` depends on the windows in which its momentum still acts: β^n ≥ 1e-8, 175 updates for β = 0.9.
They are replayed as well and are part of its fingerprint, so a run that grows longer updates its last accounts.
"""

import math
from collections.abc import Iterable

from mech_pipeline.attribution.per_example.names_version import names_version
from mech_pipeline.mechanisms.known import KNOWN
from mech_pipeline.pipeline.cells import Cell, pending_cells
from mech_pipeline.pipeline.found import FoundRun
from mech_pipeline.pipeline.grid import probe_version
from mech_pipeline.spec.analysis import WEIGHTS, Resolution
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.training import Optimizer

CODE_VERSION = "2"
_FORGOTTEN = 1e-8


def memory_updates(spec: Optimizer) -> int:
    """Updates after which a gradient's share in the momentum is below 1e-8."""
    beta = spec.momentum if spec.kind == "sgd" else spec.beta1
    return math.ceil(math.log(_FORGOTTEN) / math.log(beta)) if beta > 0 else 0


def wanted(run: FoundRun, steps: Iterable[int]) -> dict[Cell, str]:
    """Fingerprints of ledger cells (window end, mechanism). Step 0 has no updates before it, hence no account."""
    windows = {end: begin for begin, end in run.windows(max(run.checkpoints, default=0))}
    reach = memory_updates(run.spec.optimizer)
    planned = [step for step in run.planned if step in run.checkpoints]
    cells: dict[Cell, str] = {}
    for end in steps:
        if end == 0:
            continue
        run.checkpoint_version(end)
        if end not in windows:
            continue  # of a run from outside whose batches are not known there
        states = [run.checkpoints[s].data_version for s in planned if windows[end] <= s <= end + reach]
        finer: list[object] = [run.spec.ledger_by] if run.spec.ledger_by != Resolution() else []
        finer += names_version(run.spec.model, neurons=run.spec.ledger_by.neurons)
        for name in run.spec.ledger:
            version = [CODE_VERSION, name, KNOWN.mechanisms[name].version]
            probe = probe_version(name, run.artifacts)
            cells[Cell("ledger", run.spec.run, end, name)] = fingerprint(
                "ledger", version, states, probe, run.training, *finer
            )
        if run.spec.ledger_by.weights:
            account = Cell("ledger", run.spec.run, end, WEIGHTS)
            cells[account] = fingerprint("ledger", [CODE_VERSION, WEIGHTS], states, run.training, *finer)
    return cells


def pending(run: FoundRun, steps: Iterable[int]) -> list[Cell]:
    """The ledger cells that must be computed; one counts only together with its balance."""
    return pending_cells(run.store, wanted(run, steps), also=["ledger_balance"])
