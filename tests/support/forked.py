"""Training in a process of its own, forked from one that has imported everything: it starts at once."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from mech_pipeline.pipeline.training import training
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


@contextmanager
def training_in_a_process(store: Store, spec: RunSpec) -> Iterator[tuple[BaseProcess, Callable[[], int | None]]]:
    """The process, and what waits for its next checkpoint: a step, or none when it has ended."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(store.root, spec, theirs))
    process.start()
    theirs.close()

    def told() -> int | None:
        try:
            return int(ours.recv())
        except EOFError:
            return None

    with ours:
        yield process, told


def _train(root: str, spec: RunSpec, told: Connection) -> None:
    training.train(Store(root), spec, lambda saved: told.send(saved.step))
