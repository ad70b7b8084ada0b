"""Scoring of signals whose truth was planted, and what it refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mech_pipeline.errors import MechError
from mech_pipeline.signals.courses import Course
from mech_pipeline.signals.locking import Rule, lock
from mech_pipeline.signals.ranking import auroc, auroc_at_equal_time, average_precision
from mech_pipeline.signals.rates import rate
from mech_pipeline.signals.scoring import evaluate
from mech_pipeline.spec.signals import negatives_needed

STEPS = tuple(range(0, 1000, 20))
EVENT = 600


def runs(signal, first_seed, events=40, negatives=70, event=EVENT):
    """Courses of a planted signal: `signal(generator, event, step)` at every step."""
    generator = np.random.Generator(np.random.PCG64(first_seed))
    found = []
    for number in range(events + negatives):
        at = event + 20 * (number % 5) if number < events else None
        values = tuple(float(signal(generator, at, step)) for step in STEPS)
        found.append(Course(f"r{first_seed + number}", first_seed + number, at, STEPS, values))
    return found


def perfect(generator, event, step):
    """Rises by five standard deviations 200 steps before the event, and never without one."""
    return generator.normal() + (10.0 if event is not None and step >= event - 200 else 0.0)


def noise(generator, event, step):
    return generator.normal()


def elapsed(generator, event, step):
    return step


def fires_on_everything(generator, event, step):
    """Rises in every run, a little earlier where nothing comes."""
    return generator.normal() + (10.0 if step >= (300 if event is None else 320) else 0.0)


def scored(signal, claim=0.05, **unseen):
    """Explored on some runs, evaluated on others: scores by target."""
    made = lock({"planted": runs(signal, 0)}, claim)
    found = evaluate(made, "planted", runs(signal, 10_000, **unseen), sha256=made.sha256)
    return {score.target: score for score in found}


def test_a_perfect_signal_is_supported_with_its_true_lead():
    found = scored(perfect, claim=0.05)[0.05]
    assert found.label == "SUPPORTED"
    assert found.coverage.value == 1.0
    assert (found.auroc, found.auroc_equal_time, found.average_precision) == pytest.approx((1, 1, 1))
    assert found.lead == (200, 200, 200)
    assert found.lead_share[1] == pytest.approx(200 / 640)
    assert found.false_alarms.bound < 0.05
    assert found.abstained_events == found.abstained_negatives == 0


def test_a_signal_where_small_is_suspicious_is_turned():
    made = lock({"planted": runs(lambda *args: -perfect(*args), 0)}, 0.05)
    assert made.rules["planted"].direction == -1
    found = evaluate(made, "planted", runs(lambda *args: -perfect(*args), 10_000), sha256=made.sha256)
    assert found[1].label == "SUPPORTED"


def test_noise_is_not_supported():
    found = scored(noise)[0.05]
    assert found.label in ("FAILED", "UNSTABLE")
    assert found.coverage.value < 0.2
    assert 0.35 < found.auroc_equal_time < 0.65


def test_the_elapsed_step_tells_nothing_at_equal_time():
    """All runs are as old as each other; and an alarm at a step rings in every run."""
    made = lock({"planted": runs(elapsed, 0)}, 0.05)
    found = evaluate(made, "planted", runs(elapsed, 10_000), sha256=made.sha256)
    assert all(score.auroc_equal_time == 0.5 for score in found)
    assert all(score.coverage.count == 0 for score in found)
    assert [score.label for score in found] == ["INCONCLUSIVE", "FAILED", "FAILED"]


def test_a_signal_that_fires_on_negatives_has_failed():
    assert scored(fires_on_everything)[0.05].label in ("FAILED", "UNSTABLE")
    rule = Rule("planted", "level", 1, {0.05: 5.0}, 1.0)
    made = replace(lock({"planted": runs(perfect, 0)}, 0.05), rules={"planted": rule})
    (found,) = evaluate(made, "planted", runs(fires_on_everything, 10_000), sha256=made.sha256)
    assert found.label == "UNSTABLE"
    assert found.false_alarms.value == found.coverage.value == 1.0  # covers everything, and is worth nothing


def test_a_signal_that_is_seen_after_the_event_alone_covers_nothing():
    found = scored(lambda generator, event, step: float(event is not None and step >= event))[0.05]
    assert found.coverage.count == 0
    assert found.auroc_equal_time == 0.5
    assert found.lead is None


def test_a_signal_that_abstains_in_negatives_proves_nothing():
    def silent(generator, event, step):
        return math.nan if event is None else perfect(generator, event, step)

    found = scored(silent)[0.05]
    assert (found.abstained_negatives, found.false_alarms.of, found.floor) == (70, 0, 1.0)
    assert found.label == "INCONCLUSIVE"
    assert found.coverage.count == 0  # no threshold could be set


def test_an_event_that_it_abstains_from_is_not_announced():
    def sometimes(generator, event, step):
        return math.nan if event == 600 else perfect(generator, event, step)

    found = scored(sometimes)[0.05]
    assert (found.coverage.count, found.coverage.of, found.abstained_events) == (32, 40, 8)


def test_few_events_leave_it_open():
    assert scored(perfect, events=29)[0.05].label == "INCONCLUSIVE"


def test_of_several_signals_the_best_explored_one_is_chosen():
    made = lock({"noise": runs(noise, 0), "good": runs(perfect, 0)}, 0.05)
    assert made.chosen == "good"


def test_without_negatives_nothing_is_locked_or_scored():
    with pytest.raises(MechError, match="no negative run"):
        lock({"planted": runs(perfect, 0, negatives=0)}, 0.05)
    made = lock({"planted": runs(perfect, 0)}, 0.05)
    with pytest.raises(MechError, match="no unseen negative runs .* 29 are needed"):
        evaluate(made, "planted", runs(perfect, 10_000, negatives=0), sha256=made.sha256)


def test_too_few_negatives_are_refused_with_the_number_that_is_needed():
    made = lock({"planted": runs(perfect, 0)}, 0.05)
    with pytest.raises(MechError, match="20 unseen negative runs .* below 0.14 → 29 are needed"):
        evaluate(made, "planted", runs(perfect, 10_000, negatives=20), sha256=made.sha256)


def test_events_are_needed():
    with pytest.raises(MechError, match="no event"):
        lock({"planted": runs(perfect, 0, events=0)}, 0.05)
    made = lock({"planted": runs(perfect, 0)}, 0.05)
    with pytest.raises(MechError, match="nothing to announce"):
        evaluate(made, "planted", runs(perfect, 10_000, events=0), sha256=made.sha256)


def test_a_signal_that_was_not_locked_is_refused_on_unseen_runs():
    made = lock({"planted": runs(perfect, 0)}, 0.05)
    with pytest.raises(MechError, match="'other' was not locked"):
        evaluate(made, "other", runs(perfect, 10_000), sha256=made.sha256)


def test_explored_seeds_are_not_evaluated():
    made = lock({"planted": runs(perfect, 0)}, 0.05)
    with pytest.raises(MechError, match="seed 0 was explored"):
        evaluate(made, "planted", runs(perfect, 0), sha256=made.sha256)


@pytest.mark.parametrize("change", ["thresholds", "direction", "chosen", "made_from"])
def test_a_changed_lock_is_refused(change):
    made = lock({"planted": runs(perfect, 0)}, 0.05)
    rule = made.rules["planted"]
    changed = {
        "thresholds": {"rules": {"planted": replace(rule, thresholds={**rule.thresholds, 0.05: 3.0})}},
        "direction": {"rules": {"planted": replace(rule, direction=-rule.direction)}},
        "chosen": {"chosen": "other"},
        "made_from": {"made_from": "else"},
    }[change]
    with pytest.raises(MechError, match="it was changed"):
        evaluate(replace(made, **changed), "planted", runs(perfect, 10_000), sha256=made.sha256)


def test_signals_explored_on_other_runs_are_refused():
    with pytest.raises(MechError, match="different runs"):
        lock({"one": runs(perfect, 0), "two": runs(perfect, 1)}, 0.05)


@pytest.mark.parametrize(("claim", "needed"), [(0.01, 299), (0.05, 59), (0.10, 29)])
def test_one_run_fewer_would_not_do(claim, needed):
    assert negatives_needed(claim) == needed
    assert rate(0, needed).bound <= claim < rate(0, needed - 1).bound


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_areas_against_their_definitions(coming, never):
    """One value a run, so that the peak is the value; and an event after it."""
    courses = [Course(f"e{i}", i, 10, (0,), (float(v),)) for i, v in enumerate(coming)]
    courses += [Course(f"n{i}", i, None, (0,), (float(v),)) for i, v in enumerate(never)]
    pairs = [(a > b) + 0.5 * (a == b) for a in coming for b in never]
    assert auroc(courses, "level", 1) == pytest.approx(np.mean(pairs))
    assert auroc_at_equal_time(courses, "level", 1) == pytest.approx(np.mean(pairs))
    precision = 0.0
    for value in coming:  # the average over events of the precision at their own score
        above_or_equal = sum(v >= value for v in coming)
        precision += above_or_equal / (above_or_equal + sum(v >= value for v in never))
    assert average_precision(courses, "level", 1) == pytest.approx(precision / len(coming))


def test_runs_in_which_a_signal_abstains_rank_below_all_others():
    """Two that abstain are a tie."""
    event = Course("e", 0, 20, (0, 10), (math.nan, 1.0))
    silent = [Course("f", 1, 20, (0, 10), (math.nan, math.nan)), Course("n", 2, None, (0, 10), (math.nan, math.nan))]
    assert auroc([event, *silent], "level", 1) == 0.75
    assert average_precision([event, *silent], "level", 1) == pytest.approx(5 / 6)


def test_a_negative_is_read_no_longer_than_the_event_beside_it():
    event = Course("e", 0, 20, (0, 10, 20), (1.0, 2.0, 9.0))
    later = Course("n", 0, None, (0, 10, 20), (0.0, 1.0, 5.0))
    assert auroc([event, later], "level", 1) == 0.0
    assert auroc_at_equal_time([event, later], "level", 1) == 1.0


def test_readings_never_look_ahead():
    generator = np.random.Generator(np.random.PCG64(3))
    values = generator.normal(size=len(STEPS))
    changed = np.where(np.array(STEPS) < 500, values, 99.0)
    for reading in ("level", "change", "slope"):
        one = Course("a", 0, None, STEPS, tuple(values)).readings(reading, 1)
        two = Course("a", 0, None, STEPS, tuple(changed)).readings(reading, 1)
        np.testing.assert_array_equal(one[:25], two[:25])
