"""Everything that training a run, or taking it from outside, means for the store: checkpoints, batches, status."""

from collections.abc import Callable

from mech_pipeline.pipeline.look import one_look
from mech_pipeline.pipeline.run_row import mark_status, standing_of, stored_spec
from mech_pipeline.pipeline.tokens.probe_data import check_probe_data
from mech_pipeline.pipeline.tokens.tokens import load_tokens
from mech_pipeline.pipeline.training import training
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.pipeline.training.from_outside import import_checkpoints
from mech_pipeline.pipeline.training.publisher import OnCheckpoint
from mech_pipeline.pipeline.training.stack import stack_of, train_stack
from mech_pipeline.pipeline.training.wanted import missing_checkpoints
from mech_pipeline.progress import Emit
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

Train = Callable[[Store, RunSpec, OnCheckpoint, Emit], int]


def fill_checkpoints(
    store: Store,
    spec: RunSpec,
    reporter: Callable[[RunSpec], OnCheckpoint] = lambda spec: lambda saved: None,
    emit: Emit = lambda line: None,
    train_one: Train | None = None,
) -> dict[str, int]:
    """Trains what is missing of a run; returns the number of checkpoints made, of each run that was trained.

    A stacked run trains its siblings along with it; their own turn finds the work done.

    Args:
        reporter: gives, of each run, the callback for its checkpoints as they are published.
        train_one: how a run that is not stacked is trained, if not in this process.

    Raises:
        MechError: another process trains this run, training diverged, or a replayed state differs from the kept one.
    """
    if spec.imported is not None:
        made = {spec.run: import_checkpoints(store, spec, reporter(spec), emit)}
        write_batches(store, spec)
        return made
    if missing_checkpoints(store, spec):
        check_probe_data(spec, load_tokens(store, spec).probe)

    def starting(one: RunSpec) -> OnCheckpoint:
        with one_look([one.run]):
            if missing_checkpoints(store, one):
                mark_status(store, one, "training")
        return reporter(one)

    if spec.training.stacked:
        made = train_stack(store, stack_of(store, spec), starting, emit)
    else:
        made = {spec.run: (train_one or training.train)(store, spec, starting(spec), emit)}
    for trained in dict.fromkeys([*made, spec.run]):
        finished = spec if trained == spec.run else stored_spec(store, trained).at(spec.home)
        write_batches(store, finished)
        mark_status(store, finished, standing_of(store, finished))
    return made
