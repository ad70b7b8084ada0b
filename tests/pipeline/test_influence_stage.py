"""Influence as stored: several targets, tokens, components, cheap methods, and a sweep that was killed half-way."""

import pytest
import torch

from mech_pipeline.attribution.influence import influence as attribution_influence
from mech_pipeline.attribution.influence.reliability import Smoothness
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import Cell, stored_versions
from mech_pipeline.pipeline.influence import influence, sweep
from mech_pipeline.pipeline.influence import wanted as influence_cells
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support import tiny
from tests.support.once import trained as trained_once

pytestmark = pytest.mark.usefixtures("folder")
COPY, PREVIOUS = "induction_copy_advantage", "previous_token_attention"


def opened(store: Store, **influence_fields) -> OpenRun:
    """A trained tiny run that asks for influence."""
    asked = {"mechanisms": [COPY], "metasmoothness_steps": 0} | influence_fields
    spec = tiny.spec_of(influence=asked)
    return trained_once(store, spec)


def smooth(value, given):
    """Metasmoothness of that value, without perturbed trainings."""
    reference = given[4]
    return Smoothness(value, reference, reference)


def rows(store: Store, table: str, where: str = "true") -> list[tuple]:
    return query(
        store.root, f"select step, mechanism, update_step, example_id, value from {table} where {where} order by all"
    ).rows()


@pytest.mark.slow
def test_targets_of_a_list_are_swept_together_and_equal_single_sweeps(local_store, tmp_path):
    run = opened(local_store, mechanisms=[COPY, PREVIOUS], at=[6, 24])
    assert influence_cells.target_steps(run) == [6, 24]
    assert influence.compute_influence(run, [6, 24]) == 4
    other = Store(tmp_path / "other")
    alone = opened(other, at=[24])
    influence.compute_influence(alone, [24])
    where = f"step = 24 and mechanism = '{COPY}'"
    together, single = rows(local_store, "influence", where), rows(other, "influence", where)
    assert [row[:4] for row in together] == [row[:4] for row in single]
    scale = max(abs(row[4]) for row in single)
    assert max(abs(a[4] - b[4]) for a, b in zip(together, single, strict=True)) < 1e-4 * scale
    assert influence_cells.pending(run, [6, 24]) == []


def test_every_planned_checkpoint_can_be_a_target(local_store):
    run = opened(local_store, at="checkpoints", horizon=6)
    steps = influence_cells.target_steps(run)
    assert steps == [step for step in run.planned if step > 0]
    influence.compute_influence(run, steps)
    found = query(
        local_store.root, "select step, min(update_step), max(update_step) from influence group by 1 order by 1"
    )
    assert found.rows() == [(step, max(0, step - 6), step - 1) for step in steps]


def test_tokens_and_components_sum_to_the_examples_influence(local_store):
    run = opened(local_store, at=[12], tokens=True, components=True)
    influence.compute_influence(run, [12])
    sums = query(
        local_store.root,
        """with whole as (select update_step, example_id, sum(value::double) as w, count(*) as parts from influence
            where method = 'adjoint' group by 1, 2),
        tokens as (select update_step, example_id, sum(value::double) as t, sqrt(avg(value::double ** 2)) as rms,
            min(token_position) as first, max(token_position) as last from influence_tokens group by 1, 2)
        select max(abs(w - t) / (rms / 32)), count(*), min(first), max(last), min(parts) from whole join tokens
        using (update_step, example_id)""",
    ).rows()[0]
    assert sums[0] <= 1, "the sum is off by half a grid step at most"
    assert sums[1:4] == (
        query(local_store.root, "select count(distinct (update_step, example_id)) from influence").item(),
        1,
        15,
    )
    assert sums[4] == len(run.components.names)


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(local_store, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "KEEP_EVERY_SECONDS", 0.0)
    whole = Store(tmp_path / "whole")
    influence.compute_influence(opened(whole, at=[24], tokens=True), [24])
    run, reverse, calls = opened(local_store, at=[24], tokens=True), attribution_influence.reverse_update, []

    def dies_at_ten(trainer, made, *rest):
        calls.append(made.before.step)
        if made.before.step == 10:
            raise KeyboardInterrupt
        return reverse(trainer, made, *rest)

    monkeypatch.setattr(attribution_influence, "reverse_update", dies_at_ten)
    with pytest.raises(KeyboardInterrupt):
        influence.compute_influence(run, [24])
    assert query(local_store.root, "select first_update from sweeps").rows() == [(12,)]
    assert rows(local_store, "influence") == []
    monkeypatch.setattr(
        attribution_influence, "reverse_update", lambda *given: calls.append(given[1].before.step) or reverse(*given)
    )
    del calls[:]
    said = []
    influence.compute_influence(OpenRun(local_store, run.spec), [24], said.append)
    assert max(calls) == 11, "what was kept is not computed again"
    assert any("continuing before update 12" in str(line) for line in said)
    for table in ("influence", "influence_tokens"):
        assert rows(local_store, table) == rows(whole, table)
    assert query(local_store.root, "select count(*) from sweeps").item() == 0
    assert not verify_store(local_store.files).damage


@pytest.mark.slow
def test_cheap_methods_stand_beside_the_exact_one_and_say_how_well_they_agree(local_store):
    methods = ["adjoint", "gradient_dot", "gradient_dot_adam", "gauss_newton"]
    run = opened(local_store, mechanisms=[COPY, PREVIOUS], at=[12], methods=methods)
    assert influence.compute_influence(run, [12]) == 8
    counted = query(
        local_store.root, "select method, mechanism, count(*), bool_or(reliable is null) from influence group by 1, 2"
    ).rows()
    assert {row[:2] for row in counted} == {(method, name) for method in methods for name in (COPY, PREVIOUS)}
    assert len({row[2] for row in counted}) == 1, "all methods score the same (update, example) pairs"
    agreement = dict(
        query(
            local_store.root,
            f"select method, value from reliability where metric = 'agreement' and mechanism = '{COPY}'",
        ).rows()
    )
    assert set(agreement) == set(methods) - {"adjoint"}
    assert all(-1 <= value <= 1 for value in agreement.values())
    assert influence_cells.pending(run, [12]) == []
    fewer = OpenRun(
        local_store,
        run.spec.model_copy(update={"influence": run.spec.influence.model_copy(update={"methods": ("adjoint",)})}),
    )
    assert influence_cells.pending(fewer, [12]) == []


def test_scores_past_the_horizon_or_in_rough_training_are_flagged(local_store, monkeypatch):
    monkeypatch.setattr("mech_pipeline.attribution.influence.reliability.GROWTH_LIMIT", 1.0)
    run = opened(local_store, at=[24])
    influence.compute_influence(run, [24])
    horizon = query(local_store.root, "select value from reliability where metric = 'horizon_step'").item()
    flagged = query(
        local_store.root, "select distinct reliable, update_step >= ? from influence".replace("?", str(horizon))
    )
    assert set(flagged.rows()) == {(False, False), (None, True)}


def test_metasmoothness_is_measured_once_for_all_mechanisms_of_a_target(local_store, monkeypatch):
    calls = []
    monkeypatch.setattr(influence, "metasmoothness", lambda *given: calls.append(given) or smooth(0.25, given))
    run = opened(local_store, mechanisms=[COPY, PREVIOUS], at=[12], metasmoothness_steps=6)
    influence.compute_influence(run, [12])
    assert len(calls) == 1
    assert query(local_store.root, "select distinct reliable from influence").rows() == [(False,)]


@pytest.mark.slow
def test_sketches_are_stored_once_and_answer_later_questions(local_store, monkeypatch):
    asked = {"at": [12], "methods": ["gradient_dot_adam", "sketch"], "sketch_size": 256}
    run = opened(local_store, mechanisms=[COPY], **asked)
    influence.compute_influence(run, [12])
    files = "select step, uri, sha256 from sketches order by step"
    made = query(local_store.root, files).rows()
    assert query(local_store.root, "select sum(until - step) from sketches where size = 256").item() == 12
    monkeypatch.setattr("mech_pipeline.pipeline.influence.sketches.sketch_window", None)  # no gradient is made again
    later = opened(local_store, mechanisms=[COPY, PREVIOUS], **asked)
    assert influence.compute_influence(later, [12]) == 2
    assert query(local_store.root, files).rows() == made
    outside = query(
        local_store.root,
        """with pairs as (
            select mechanism, update_step, example_id, any_value(value) filter (method = 'sketch') as found,
                any_value(value) filter (method = 'gradient_dot_adam') as exact from influence group by all),
        errors as (
            select mechanism, update_step, value from reliability where metric = 'standard_error' and method = 'sketch')
        select avg((abs(found - exact) > 2 * value)::int) as share, count(*) as n, count(value) as stated
        from pairs left join errors using (mechanism, update_step)""",
    ).row(0, named=True)
    assert outside["n"] == outside["stated"] > 100
    assert outside["share"] < 0.15, "5 % of normal errors lie beyond two standard errors"
    assert not verify_store(local_store.files).damage
    other = opened(local_store, mechanisms=[COPY], **asked | {"sketch_size": 64})
    assert tiny.places(influence_cells.pending(other, [12])) == [(12, f"{COPY}:sketch")]


def test_smoothness_of_the_last_updates_says_nothing_of_earlier_scores(local_store, monkeypatch):
    monkeypatch.setattr(influence, "metasmoothness", lambda *given: smooth(0.95, given))
    influence.compute_influence(opened(local_store, at=[12], metasmoothness_steps=3), [12])
    since = query(local_store.root, "select value from reliability where metric = 'metasmoothness_since'").item()
    assert 0 < since <= 9
    flags = query(
        local_store.root, f"select distinct update_step >= {since} as late, reliable from influence order by 1"
    )
    assert flags.rows() == [(False, None), (True, True)]
    assert query(local_store.root, "from reliability where metric = 'reliable'").is_empty()


def test_without_a_limit_smoothness_is_measured_of_everything_that_influence_covers(local_store):
    influence.compute_influence(opened(local_store, at=[12], metasmoothness_steps=None), [12])
    influence.compute_influence(opened(local_store, at=[12], metasmoothness_steps=None, horizon=4), [12])
    measured = query(local_store.root, "select distinct value from reliability where metric = 'metasmoothness_since'")
    assert measured["value"].to_list() == [6.0]  # the checkpoint before update 8; it replaced the measure of all 12
    assert query(local_store.root, "select distinct reliable is null from influence").rows() == [(False,)]


def test_a_target_that_no_state_is_kept_of_is_refused_in_the_file():
    with pytest.raises(
        MechError, match="keeps no state at step 7; choose a step of its checkpoint plan, or add it with"
    ):
        tiny.spec_of(influence={"mechanisms": [COPY], "at": [7]})


def test_changing_a_setting_recomputes_only_what_depends_on_it(local_store):
    run = opened(local_store, at=[12], methods=["adjoint", "gradient_dot"])
    influence.compute_influence(run, [12])
    before = stored_versions(local_store, "influence", run.spec.run)
    asked = run.spec.influence.model_copy(update={"metasmoothness_steps": 6})
    changed = OpenRun(local_store, run.spec.model_copy(update={"influence": asked}))
    assert tiny.places(influence_cells.pending(changed, [12])) == [(12, COPY)]
    influence.compute_influence(changed, [12])
    after = stored_versions(local_store, "influence", run.spec.run)
    other = Cell("influence", run.spec.run, 12, COPY, "gradient_dot")
    assert before[other] == after[other]
    assert torch.isfinite(torch.tensor([row[4] for row in rows(local_store, "influence")])).all()


def test_a_missing_environment_is_named_before_anything_is_computed(local_store, monkeypatch):
    monkeypatch.delenv("MECH_EKFAC_PYTHON", raising=False)
    run = opened(local_store, at=[12], methods=["adjoint", "ekfac"])
    with pytest.raises(MechError, match="EK-FAC needs kronfluence in an environment of its own.* → python -m venv"):
        influence.compute_influence(run, [12])
    assert rows(local_store, "influence") == []
