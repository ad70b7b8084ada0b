"""Which values of signals there should be, and what each would be made from now."""

from collections.abc import Iterable

from mech_pipeline.pipeline.cells import Cell
from mech_pipeline.pipeline.found import FoundRun
from mech_pipeline.signals.registry import signal_versions
from mech_pipeline.spec.fingerprint import fingerprint

CODE_VERSION = "1"


def step_before(run: FoundRun, step: int) -> int | None:
    """The planned checkpoint before one; none: it is the first."""
    earlier = [each for each in run.planned if each < step]
    return earlier[-1] if earlier else None


def wanted_values(run: FoundRun, steps: Iterable[int]) -> dict[Cell, str]:
    """Fingerprints of the signals at planned checkpoints that are there, with the one before."""
    cells: dict[Cell, str] = {}
    versions = signal_versions()
    for step in steps:
        before = step_before(run, step)
        if step not in run.checkpoints or (before is not None and before not in run.checkpoints):
            continue
        states = [run.checkpoint_version(each) for each in (before, step) if each is not None]
        for name in run.spec.signals:
            made_from = fingerprint(
                *("signal", CODE_VERSION, name, versions[name], states),
                *(run.artifacts.get("pool", ""), run.spec.data.seed, run.spec.model),
            )
            cells[Cell("signal_values", run.spec.run, step, name)] = made_from
    return cells
