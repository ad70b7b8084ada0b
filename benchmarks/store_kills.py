"""Writers killed with signal 9 at random moments: what they had acknowledged is whole, nothing is half there."""

import json
import os
import random
import signal
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

from store_measure import Result, Say
from store_writers import CELLS, PROCESSES, TABLE, cell, read_cells

from mech_pipeline.progress import Progress
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.store import Store

_LONGEST_LIFE = 0.4  # seconds from a writer's first write to its death


def measure_kills(folder: Path, kills: int, say: Say) -> list[Result]:
    """A writer after another, each killed at a random moment; what it had acknowledged must be whole."""
    root, chance = str(folder / "killed"), random.Random(0)
    counts: Counter[str] = Counter(partial=0, lost=0)
    acknowledged: dict[tuple[str, int], int] = {}
    progress = Progress(say, "kill writers", kills, "kills")
    for round_ in range(kills):
        ours, theirs = PROCESSES.Pipe(duplex=False)
        writer = PROCESSES.Process(target=_write_until_killed, args=(root, round_, theirs))
        writer.start()
        theirs.close()
        # The first may acknowledge something before its time runs, however slow the machine.
        acks = _kill(writer.pid, ours, chance.random() * _LONGEST_LIFE, acknowledged_first=round_ == 0)
        writer.join()
        acknowledged |= acks
        counts["acknowledged"] += len(acks)
        now, partial = read_cells(root)
        counts["partial"] += partial
        counts["lost"] += sum(now.get(place, -1) < generation for place, generation in acknowledged.items())
        progress(round_ + 1)
    found = verify_store(Store(root).files)
    other = [finding for finding in found.damage if finding.kind != "unrecorded"]
    return [
        Result("kills", "acknowledged cells lost or old", counts["lost"], "cells", 0),
        Result("kills", "cells partly visible", counts["partial"], "cells", 0),
        Result("kills", "damage besides unrecorded", len(other), "files", 0),
        Result("kills", "unrecorded files", len(found.damage) - len(other), "files"),
        Result("kills", "files that nothing names", len(found.orphans), "files"),
        Result("kills", "commits acknowledged", counts["acknowledged"], "commits"),
    ]


def _write_until_killed(root: str, round_: int, acknowledge: Connection) -> None:
    store = Store(root)
    for n in range(1_000_000):
        step, generation = n % CELLS, round_ * 1_000_000 + n
        if n == 0:
            acknowledge.send_bytes(b"begin")
        store.write(TABLE, cell("killed", step, generation), replace={"run": ["killed"], "step": [step]})
        acknowledge.send_bytes(json.dumps([step, generation]).encode())


def _kill(process: int, messages: Connection, life: float, *, acknowledged_first: bool) -> dict[tuple[str, int], int]:
    """Kills a writer `life` seconds after it began its first write, or after that was acknowledged; returns what it
    acknowledged before it died."""
    done: dict[tuple[str, int], int] = {}
    messages.recv_bytes()
    if acknowledged_first:
        step, generation = json.loads(messages.recv_bytes())
        done["killed", step] = generation
    time.sleep(life)
    os.kill(process, signal.SIGKILL)
    while True:
        try:
            step, generation = json.loads(messages.recv_bytes())
        except (EOFError, OSError):
            return done
        done["killed", step] = generation
