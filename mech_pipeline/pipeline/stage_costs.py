"""What stages took: seconds, CPU seconds and memory of each piece of work, kept in the table `stage_costs`.

Measured around the work, written when it has ended well, and read by people alone: no fingerprint contains it, so a store
without it is current. One small commit for each piece of work, some 50 ms.

The peak of memory is the kernel's high-water mark of the process, set back when the work begins (proc(5), clear_refs);
where the kernel refuses that, it is the largest since the process began.
"""

import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mech_pipeline.provenance import device, machine
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

TABLE = "stage_costs"
_OF_RUNS = "where coalesce(list_contains($runs::varchar[], run), true)"


@dataclass
class Work:
    """A piece of work under way.

    Attributes:
        cells: how many cells it has computed, by run; nothing is kept of work that computed none.
    """

    cells: dict[str, int] = field(default_factory=dict)


@contextmanager
def measured(store: Store, stage: str, specs: Sequence[RunSpec], steps: Sequence[int] = ()) -> Iterator[Work]:
    """Measures the block, and keeps what it took when it ends without an error.

    Args:
        specs: the runs whose cells may be computed.
        steps: of the checkpoints that are worked on; none: of whole runs.
    """
    work, began = Work(), datetime.now(UTC).isoformat(timespec="microseconds")
    _begin_peak()
    wall, cpu = time.perf_counter(), _cpu_seconds()
    yield work
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    made = [spec for spec in specs if work.cells.get(spec.run)]
    for spec in made:
        row = _row(spec, steps) | {"stage": stage, "began": began, "cells": work.cells[spec.run]}
        row |= {"wall_seconds": wall / len(made), "cpu_seconds": cpu / len(made)}
        keys = {name: [row[name]] for name in ("run", "stage", "began")}
        store.write(TABLE, {name: [value] for name, value in row.items()}, replace=keys)


def _row(spec: RunSpec, steps: Sequence[int]) -> dict[str, Any]:
    """All columns but those of the work itself."""
    return {
        "run": spec.run,
        "first_step": min(steps, default=None),
        "last_step": max(steps, default=None),
        "peak_bytes": _peak_bytes(),
        "peak_gpu_bytes": _peak_gpu_bytes(),
        "device": device(spec.training.device, spec.training.threads),
        "machine": machine(),
    }


def _cpu_seconds() -> float:
    """User and system time of this process, and of its children that have ended."""
    return sum(os.times()[:4])


def _begin_peak() -> None:
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _peak_bytes() -> int:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _peak_gpu_bytes() -> int | None:
    """PyTorch is asked only where somebody has loaded it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.max_memory_allocated())


@dataclass(frozen=True)
class UnitCost:
    """What a cell of a stage took: the median over pieces of work, and the largest memory of any."""

    stage: str
    cpu_seconds: float
    peak_bytes: int
    peak_gpu_bytes: int | None


def unit_costs(store: Store, runs: Sequence[str] | None) -> list[UnitCost]:
    """Of the stages that some runs (none: all of the store) have been through, the costliest first."""
    with store.reading(TABLE) as connection:
        rows = connection.execute(
            "select stage, median(cpu_seconds / cells), max(peak_bytes), max(peak_gpu_bytes) from stage_costs "
            f"{_OF_RUNS} group by stage order by sum(cpu_seconds) desc, stage",
            {"runs": runs},
        ).fetchall()
    return [UnitCost(*row) for row in rows]


def run_costs(store: Store, runs: Sequence[str] | None) -> dict[str, float]:
    """CPU seconds that each stage took of a run: the median over some runs, or over all of the store."""
    with store.reading(TABLE) as connection:
        rows = connection.execute(
            "select stage, median(seconds) from (select run, stage, sum(cpu_seconds) as seconds from stage_costs "
            f"{_OF_RUNS} group by all) group by stage order by stage",
            {"runs": runs},
        ).fetchall()
    return dict(rows)
