"""An order of examples in which some of them are moved, or others stand in their places, in a window of updates.

moved     in the window, the place p of the stream of chosen examples becomes p − earlier · B, and the stream is sorted by that:
          everything is seen as often as before, and nothing leaves the window. Of a window of L updates, earlier = L puts them
          first, earlier = −L last. Chosen examples keep their order among themselves, and so do the others.
replaced  each place of a chosen example is taken by the example that stands in for it.

A pure function of the order it is made from and of what was chosen, so that resume, replay and attribution need no state.
It costs 8 bytes for each example of a window in which examples are moved.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mech_pipeline.data.order import Order


@dataclass(frozen=True)
class Rearrangement:
    """What is done with chosen examples.

    Attributes:
        example: places in the pool, rising.
        instead: what stands in for each; empty: they are moved.
        first: first update in which it is done.
        last: last one.
        earlier: by how many updates they are moved.
    """

    example: NDArray[np.int64]
    instead: NDArray[np.int64]
    first: int
    last: int
    earlier: int = 0


class RearrangedOrder(Order):
    """An order with a rearrangement.

    >>> plain = Order(0, {"all": np.arange(4)}, (), 2)
    >>> chosen, none = plain.at_step(1), np.empty(0, dtype=np.int64)
    >>> first = RearrangedOrder(plain, Rearrangement(np.sort(chosen), none, 0, 1, earlier=2))
    >>> first.at_step(0).tolist() == chosen.tolist(), first.at_step(1).tolist() == plain.at_step(0).tolist()
    (True, True)
    """

    def __init__(self, order: Order, change: Rearrangement) -> None:
        self._order, self._change = order, change

    def at_step(self, step: int) -> NDArray[np.int64]:
        """Indices into the pool of the examples of update `step`."""
        change = self._change
        if not change.first <= step <= change.last:
            return self._order.at_step(step)
        return self._replaced(self._order.at_step(step)) if len(change.instead) else self._moved[step - change.first]

    def departs_at(self, until: int) -> int:
        """The first update that sees other examples than without the rearrangement; `until` if none before it does."""
        for step in range(self._change.first, min(self._change.last + 1, until)):
            if not np.array_equal(self.at_step(step), self._order.at_step(step)):
                return step
        return until

    def _replaced(self, batch: NDArray[np.int64]) -> NDArray[np.int64]:
        chosen, instead = self._change.example, self._change.instead
        place = np.minimum(np.searchsorted(chosen, batch), len(chosen) - 1)
        return np.where(chosen[place] == batch, instead[place], batch)

    @cached_property
    def _moved(self) -> NDArray[np.int64]:
        """[update of the window, example]."""
        change = self._change
        batches = np.stack([self._order.at_step(step) for step in range(change.first, change.last + 1)])
        stream = batches.reshape(-1)
        chosen = np.isin(stream, change.example)
        place = np.arange(len(stream)) - change.earlier * batches.shape[1] * chosen
        moved: NDArray[np.int64] = stream[np.lexsort((~chosen, place))].reshape(batches.shape)
        return moved
