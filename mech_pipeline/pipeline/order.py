"""Which examples each update of a run sees, where that is not the trainer's own draw."""

import numpy as np

from mech_pipeline.data.listed_order import COLUMNS, ListedOrder, read_batches
from mech_pipeline.data.order import Order
from mech_pipeline.data.rearranged import RearrangedOrder
from mech_pipeline.data.token_file import StraightOrder
from mech_pipeline.pipeline.tokens.tokens import Tokens
from mech_pipeline.pipeline.training.wanted import batches_are_current
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


def order_of(store: Store, spec: RunSpec, tokens: Tokens) -> Order | None:
    """The order that a table tells, of a mixture, or with a rearrangement; without any, the trainer's own."""
    if spec.imported is not None and spec.imported.batches is not None:
        if spec.imported.gives_tokens:
            return StraightOrder(spec.imported.updates[0], spec.training.batch)
        return _told(store, spec, spec.imported.batches, tokens)
    mixture, change = spec.data.mixture, tokens.rearrangement
    if not mixture and change is None:
        return None
    everything = {"all": np.arange(len(tokens.pool))}
    named = list(dict.fromkeys(name for phase in mixture for name in phase.weights))
    order = Order(spec.seed, tokens.stored.members(named) if named else everything, mixture, spec.training.batch)
    return order if change is None else RearrangedOrder(order, change)


def _told(store: Store, spec: RunSpec, file: str, tokens: Tokens) -> ListedOrder:
    """Of a run from outside: as the store has it, else as the file has it, which need not be there later."""
    if not batches_are_current(store, spec):
        path = spec.home / file
        return ListedOrder(read_batches(path, spec.run), tokens.example_ids, str(path))
    with store.reading("batches") as connection:
        frame = connection.sql(
            f"select {', '.join(COLUMNS)} from batches where run = $run order by update_step, position",
            params={"run": spec.run},
        ).pl()
    return ListedOrder(frame, tokens.example_ids, "table `batches`")
