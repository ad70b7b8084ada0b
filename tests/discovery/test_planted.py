"""Kinds that are planted: probe tokens are drawn in the shares of the mixture, from held-out text of every part."""

import re
from collections import Counter

import numpy as np
import pytest

from mech_pipeline.data.languages.sums import document
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.discovery.probe import draw_tokens
from mech_pipeline.pipeline.tokens.tokens import load_tokens
from mech_pipeline.resolve import read_experiment
from mech_pipeline.spec.signals import negatives_needed
from mech_pipeline.training.update.schedule import learning_rate
from tests.support import tiny
from tests.support.places import ROOT

PARTS = {
    "text": {"files": "text/*.txt"},
    **{name: {"generated": {"language": name, "documents": 600}} for name in ("ioi", "dyck", "sums")},
}
GROUPS = ("text/tiled", "text/packed", "ioi/packed", "dyck/packed", "sums/packed")
DATA = {
    **{
        "context": 16,
        "examples": 160,
        "tile_tokens": [4, 8],
        "held_out": 0.2,
        "plain": 0.0,
        "tiled": 0.25,
        "packed": 0.75,
    },
    "part_shares": {"text": 0.4, "ioi": 0.2, "dyck": 0.2, "sums": 0.2},
    "mixture": [{"from": 0, "weights": dict.fromkeys(GROUPS, 1)}],
}


def planted(tokens):
    return tiny.spec_of(
        corpus={"parts": PARTS},
        data=DATA,
        tokenizer={"vocabulary": 400},
        arms={"baseline": {}},
        discovery={"tokens": tokens, "smallest": 5},
        ledger={},
        influence={},
    )


def test_probe_tokens_have_the_shares_of_the_mixture(local_store, folder):
    spec = planted(50)
    tiny.prepare(local_store, spec)
    tokens = load_tokens(local_store, spec)
    origin = tokens.probe.origin
    drawn = draw_tokens(spec, origin)
    assert Counter(drawn.groups) == dict.fromkeys(GROUPS, 10)
    assert not drawn.repeated[np.array(drawn.groups) != "text/tiled"].any()
    texts = [origin.tokenizer.decode(row) for row in drawn.probe.tokens.tolist()]
    sums = [text for text, group in zip(texts, drawn.groups, strict=True) if group == "sums/packed"]
    assert all("=" in text for text in sums)
    assert not any("=" in text for text, group in zip(texts, drawn.groups, strict=True) if group.startswith("dyck"))
    again = draw_tokens(spec, origin)
    assert again.probe.tokens.equal(drawn.probe.tokens)
    assert again.probe.position.equal(drawn.probe.position)
    with pytest.raises(MechError, match="lower discovery.tokens|held-out text"):
        draw_tokens(planted(40_000), origin)


def added(text):
    """The numbers of a sum, its result, and its digits."""
    digits = re.fullmatch(r"add (\d \d) \+ (\d \d) = (\d \d \d) \.", text).groups()
    return [int("".join(reversed(each.split()))) for each in digits]


def test_sums_are_right_and_units_come_first():
    for index in range(50):
        a, b, result = added(document(np.random.default_rng(index)))
        assert a + b == result


def test_sums_of_small_numbers_never_carry_into_hundreds():
    made = [added(document(np.random.default_rng(index), below=50)) for index in range(300)]
    assert all(a + b == result < 100 for a, b, result in made)
    assert max(max(a, b) for a, b, _ in made) == 49


def test_several_sums_stand_in_one_document():
    text = document(np.random.default_rng(0), below=50, together=3)
    first, *others = re.findall(r"add [^.]*\.", text)
    assert len(others) == 2
    assert " ".join([first, *others]) == text
    assert all(a + b == result for a, b, result in map(added, [first, *others]))
    assert first == document(np.random.default_rng(0), below=50)


def test_the_planted_experiment_asks_for_all_its_kinds():
    runs = read_experiment(ROOT / "experiments" / "planted.yaml").runs()
    assert len(runs) == 5
    assert all(run.discovery.tokens == 400 for run in runs)
    assert not {run.seed for run in runs} & {100, 101}, "the preset was chosen on these"
    kinds = {"python/tiled", "python/packed", "ioi/packed", "dyck/packed", "sums/packed"}
    assert all(set(phase.weights) == kinds for phase in runs[0].data.mixture)
    named = [event.mechanism or event.detector for event in runs[0].formation]
    assert {"induction_copy_advantage", "ioi_logit_difference", "bracket_logit_difference", "carry_accuracy"} < {*named}


def test_there_are_enough_runs_in_which_nothing_can_form_to_show_five_percent():
    runs = read_experiment(ROOT / "experiments" / "discovery_nulls.yaml").runs()
    forming = [run for run in runs if run.arm == "forms"]
    assert len(runs) - len(forming) >= negatives_needed(0.05)
    assert len(forming) >= 10
    assert not {run.seed for run in forming} & {100, 101}, "the arm was chosen on these"
    same = {(run.model.layers, run.model.heads, run.model.d_model, run.discovery.tokens) for run in runs}
    assert len(same) == 1, "of the nulls' size"
    assert all(run.discovery.asks for run in runs)
    stopped = next(run for run in runs if run.arm == "stopped")
    assert learning_rate(stopped.optimizer, 59) > 0.005
    assert {learning_rate(stopped.optimizer, step) for step in range(60, stopped.training.steps)} == {0.0}
