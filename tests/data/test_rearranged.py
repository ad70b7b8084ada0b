"""Orders in which examples are moved or replaced: what is seen how often, where, and what stays as it was."""

from collections import Counter

import numpy as np
import pytest

from mech_pipeline.data.order import Order
from mech_pipeline.data.rearranged import RearrangedOrder, Rearrangement

POOL, BATCH, WINDOW = 24, 4, (3, 14)
CHOSEN = np.array([1, 5, 6, 20])
NONE = np.empty(0, dtype=np.int64)
PLAIN = Order(7, {"all": np.arange(POOL)}, (), BATCH)


def moved(earlier, window=WINDOW):
    return RearrangedOrder(PLAIN, Rearrangement(CHOSEN, NONE, *window, earlier))


def stream(order, first=WINDOW[0], last=WINDOW[1]):
    return np.concatenate([order.at_step(step) for step in range(first, last + 1)])


@pytest.mark.parametrize("earlier", [1, 5, 12, -12])
def test_moving_shows_everything_as_often_and_changes_nothing_outside_of_the_window(earlier):
    order = moved(earlier)
    assert Counter(stream(order).tolist()) == Counter(stream(PLAIN).tolist())
    for step in (0, 2, 15, 40):
        assert np.array_equal(order.at_step(step), PLAIN.at_step(step))
    assert all(len(order.at_step(step)) == BATCH for step in range(20))


@pytest.mark.parametrize("earlier", [12, -12])
def test_first_and_last_put_them_at_an_end_and_keep_the_order_among_them_and_among_the_others(earlier):
    found, plain = stream(moved(earlier)), stream(PLAIN)
    chosen, others = plain[np.isin(plain, CHOSEN)], plain[~np.isin(plain, CHOSEN)]
    assert found.tolist() == (np.concatenate([chosen, others] if earlier > 0 else [others, chosen])).tolist()


def test_advanced_examples_come_just_so_many_updates_earlier_where_nothing_is_in_the_way():
    """Each chosen place moves up by three batches; those of the others that it passes move down, one place each."""
    found, plain = stream(moved(3)), stream(PLAIN)
    places = np.flatnonzero(np.isin(plain, CHOSEN))
    now = np.flatnonzero(np.isin(found, CHOSEN))
    slow = sorted(
        (place - 3 * BATCH if value in CHOSEN else place, value not in CHOSEN, place)
        for place, value in enumerate(plain)
    )
    assert found.tolist() == [plain[place] for _, _, place in slow]
    assert (now <= places).all()
    assert now.mean() < places.mean() - BATCH


def test_replacing_changes_the_places_of_the_chosen_and_no_others():
    instead = np.array([2, 9, 10, 11])
    order = RearrangedOrder(PLAIN, Rearrangement(CHOSEN, instead, *WINDOW))
    found, plain = stream(order), stream(PLAIN)
    names = dict(zip(CHOSEN.tolist(), instead.tolist(), strict=True))
    assert found.tolist() == [names.get(each, each) for each in plain.tolist()]
    assert not np.isin(found, CHOSEN).any()
    assert np.array_equal(order.at_step(15), PLAIN.at_step(15))


def test_it_departs_at_the_first_update_that_sees_something_else():
    order = moved(-12)
    first = next(step for step in range(20) if not np.array_equal(order.at_step(step), PLAIN.at_step(step)))
    assert order.departs_at(30) == first
    assert order.departs_at(2) == 2
    unseen = RearrangedOrder(PLAIN, Rearrangement(np.array([99]), np.array([0]), 0, 10))
    assert unseen.departs_at(30) == 30
