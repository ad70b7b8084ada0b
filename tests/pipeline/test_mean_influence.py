"""The method `adjoint_mean` as stored: the mean of single trajectories, its standard errors, a computation that was killed."""

import numpy as np
import pytest
from pydantic import ValidationError

from mech_pipeline.attribution.influence.trajectories import trajectory_influence, trajectory_sets
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.influence import influence, mean
from mech_pipeline.pipeline.influence import wanted as influence_cells
from mech_pipeline.pipeline.influence.estimated import target_gradients
from mech_pipeline.pipeline.influence.start import seen_examples
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.analysis import AdjointMean
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.training.loop import Diverged
from tests.support import tiny
from tests.support.once import trained as trained_once

pytestmark = pytest.mark.usefixtures("folder")
COPY, PREVIOUS = "induction_copy_advantage", "previous_token_attention"
STEP, HORIZON = 12, 8


def opened(store: Store, trajectories: int = 3, **influence_fields) -> OpenRun:
    """A trained tiny run that asks for the mean over trajectories without a quarter of the examples."""
    asked = {"mechanisms": [COPY], "metasmoothness_steps": 0, "at": [STEP], "methods": ["adjoint_mean"]}
    asked["adjoint_mean"] = {"trajectories": trajectories, "share": 0.25}
    return trained_once(store, tiny.spec_of(influence=asked | influence_fields))


def single_trajectories(run: OpenRun, count: int) -> list[dict[tuple[int, str], float]]:
    """Influence on the copy advantage in each of them, computed by itself: {(update, example): score}."""
    begin, found, ids = STEP - HORIZON, [], run.tokens.example_ids
    *_, before = run.trainer.updates(run.state(0), begin)
    for removed in trajectory_sets(seen_examples(run, begin, STEP), 0.25, count, seed=0):
        scores: dict[tuple[int, str], float] = {}
        gradients = target_gradients(run, [COPY])
        for part in trajectory_influence(run.trainer, before.after, STEP, removed, gradients):
            for example, score in zip(part.made.examples.tolist(), part.scores.tolist(), strict=True):
                pair = part.step, str(ids[example])
                scores[pair] = scores.get(pair, 0.0) + score
        found.append(scores)
    return found


def stored(store: Store, method: str, columns: str) -> dict[tuple[int, str], tuple]:
    sql = f"select update_step, example_id, {columns} from influence where method = '{method}' and mechanism = '{COPY}'"
    return {(step, example): tuple(rest) for step, example, *rest in query(store.root, sql).rows()}


@pytest.mark.slow
def test_it_is_the_mean_of_trajectories_that_are_computed_one_by_one(local_store):
    run = opened(local_store, horizon=HORIZON, mechanisms=[COPY, PREVIOUS])
    assert influence.compute_influence(run, [STEP]) == 2
    alone = single_trajectories(run, 3)
    found = stored(local_store, "adjoint_mean", "value, standard_error")
    assert set(found) == set(alone[0]) == set(alone[1]), "examples that a trajectory leaves out count in it as well"
    scale = max(abs(value) for value, _ in found.values())
    for pair, (value, _) in found.items():
        assert value == pytest.approx(np.mean([scores[pair] for scores in alone]), rel=1e-5, abs=1e-6 * scale)
    for example in {example for _, example in found}:
        totals = [sum(score for (_, each), score in scores.items() if each == example) for scores in alone]
        (error,) = {error for (_, each), (_, error) in found.items() if each == example}
        assert error == pytest.approx(np.std(totals, ddof=1) / np.sqrt(3), rel=1e-4, abs=1e-6 * scale)
    assert query(local_store.root, "select count(*) from sweeps").item() == 0
    assert not verify_store(local_store.files).damage


def test_the_mean_of_one_trajectory_is_the_exact_influence_without_a_standard_error(local_store):
    run = opened(local_store, trajectories=1, methods=["adjoint", "adjoint_mean"])
    assert influence.compute_influence(run, [STEP]) == 2
    exact = stored(local_store, "adjoint", "value, standard_error, reliable")
    assert stored(local_store, "adjoint_mean", "value, standard_error, reliable") == exact
    assert {error for _, error, _ in exact.values()} == {None}
    shared = "metric in ('adjoint_growth', 'horizon_step', 'influence_sum')"
    sql = f"select metric, count(distinct value), count(*) from reliability where {shared} group by 1 order by 1"
    assert [row[1:] for row in query(local_store.root, sql).rows()] == [(1, 2)] * 3


@pytest.mark.slow
def test_a_killed_mean_goes_on_after_the_trajectories_that_were_finished(local_store, tmp_path, monkeypatch):
    whole = Store(tmp_path / "whole")
    influence.compute_influence(opened(whole), [STEP])
    run, swept, sets = opened(local_store), mean.trajectory_influence, []

    def dies_in_the_second(trainer, start, until, removed, *rest):
        sets.append(len(removed))
        if len(sets) == 2:
            raise KeyboardInterrupt
        return swept(trainer, start, until, removed, *rest)

    monkeypatch.setattr(mean, "trajectory_influence", dies_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        influence.compute_influence(run, [STEP])
    assert query(local_store.root, "select count(*) from influence").item() == 0
    said = []
    influence.compute_influence(OpenRun(local_store, run.spec), [STEP], said.append)
    assert sets[:2] == [0, sets[1]]
    assert len(sets) == 4, "the first is not swept again, the second is"
    assert any("continuing after 1" in str(line) for line in said)
    columns = "value, standard_error"
    assert stored(local_store, "adjoint_mean", columns) == stored(whole, "adjoint_mean", columns)


def test_what_it_is_averaged_over_is_part_of_what_it_is_made_from(local_store):
    run = opened(local_store, methods=["adjoint", "adjoint_mean"])
    influence.compute_influence(run, [STEP])
    for change in ({"trajectories": 4}, {"share": 0.1}, {"seed": 1}):
        asked = run.spec.influence.adjoint_mean.model_copy(update=change)
        other = run.spec.influence.model_copy(update={"adjoint_mean": asked})
        changed = OpenRun(local_store, run.spec.model_copy(update={"influence": other}))
        assert tiny.places(influence_cells.pending(changed, [STEP])) == [(STEP, f"{COPY}:adjoint_mean")]


def test_a_trajectory_that_diverges_is_an_error_with_its_update(local_store, monkeypatch):
    def diverges(*given):
        raise Diverged("tiny", 7, float("nan"), 1.0)

    monkeypatch.setattr(mean, "trajectory_influence", diverges)
    with pytest.raises(MechError, match=r"without 0 random examples diverged at update 7 → leave adjoint_mean out"):
        influence.compute_influence(opened(local_store), [STEP])


@pytest.mark.parametrize("wrong", [{"trajectories": 0}, {"share": 0.0}, {"share": 1.0}, {"share": -0.1}, {"seed": -1}])
def test_numbers_that_make_no_sense_are_refused_in_the_file(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AdjointMean(**wrong)


def test_a_file_that_does_not_ask_for_it_is_the_file_it_was():
    plain = tiny.spec_of(influence={"mechanisms": [COPY]}).influence
    assert "adjoint_mean" not in plain.model_dump()
