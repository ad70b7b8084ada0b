"""The seeds of an arm trained in one stack: each in a thread that trains as usual, gradients computed for all at once.

Runs at different steps (one was killed earlier than another) go together as well: a gradient depends on weights and
examples only. Each run keeps, resumes and verifies its own checkpoints.
"""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mech_pipeline.pipeline.checkpoints import training_fingerprint
from mech_pipeline.pipeline.training.publisher import OnCheckpoint, Saved
from mech_pipeline.pipeline.training.training import train
from mech_pipeline.pipeline.training.wanted import missing_checkpoints
from mech_pipeline.progress import Emit, Said
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store
from mech_pipeline.training.many.stack import Together


def stack_of(store: Store, spec: RunSpec) -> list[RunSpec]:
    """The run and its siblings (other seeds of its arm) that can be trained in one stack with it now."""
    if not spec.training.stacked:
        return [spec]
    with store.reading("runs") as connection:
        rows = connection.execute(
            "select spec from runs where experiment = ? and arm = ? order by seed", [spec.experiment, spec.arm]
        ).fetchall()
    found = [RunSpec.model_validate_json(text).at(spec.home) for (text,) in rows]
    return [
        other
        for other in found
        if (other.model, other.training.identity()) == (spec.model, spec.training.identity())
        and (other.run == spec.run or training_fingerprint(store, other) is not None)
    ]


def train_stack(
    store: Store, specs: list[RunSpec], on_checkpoint: Callable[[RunSpec], OnCheckpoint], emit: Emit
) -> dict[str, int]:
    """Trains what is missing of several runs together; returns the number of checkpoints written of each.

    Args:
        on_checkpoint: gives the callback of each run. Callbacks are never called at the same time.

    Raises:
        MechError: of the first run that failed; the others were trained to their end.
    """
    missing = [spec for spec in specs if missing_checkpoints(store, spec)]
    if not missing:
        return {}
    callbacks = {spec.run: on_checkpoint(spec) for spec in missing}
    training = missing[0].training
    workers = 1 if training.device == "cuda" else os.cpu_count() or 1
    together = Together(len(missing), workers, training.threads)
    one_at_a_time = threading.Lock()

    def train_one(spec: RunSpec) -> int:
        callback = callbacks[spec.run]

        def report(saved: Saved) -> None:
            with one_at_a_time:
                callback(saved)

        def say(line: Said) -> None:
            with one_at_a_time:
                emit(line)

        try:
            return train(store, spec, report, say, together=together)
        finally:
            together.leave()

    with ThreadPoolExecutor(len(missing)) as pool:
        futures = {spec.run: pool.submit(train_one, spec) for spec in missing}
    return {run: future.result() for run, future in futures.items()}
