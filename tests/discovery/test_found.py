"""A cluster of tokens as a mechanism: its value is minus their mean loss; it is found, differentiated and patched like others."""

from dataclasses import replace

import pytest
import torch

from mech_pipeline.causal.arms import Pair, pairs
from mech_pipeline.discovery.found import found_mechanism, mechanism_file, order_mechanism
from mech_pipeline.discovery.probe_tokens import ProbeTokens
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.discovery import discover
from mech_pipeline.mechanisms.probe import Probe, Sequences
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.mechanisms.source import Origin
from mech_pipeline.pipeline.ledger.ledger import compute_ledger
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.resolve import read_experiment
from mech_pipeline.store.reading.query import query
from tests.support import tiny
from tests.support.choosing import compute, experiment_of
from tests.support.models import CONTEXT, VOCABULARY, trainer_of
from tests.support.places import ROOT

SEQUENCES = [[1, 2, 3], [4, 5, 6, 7, 8], [9, 1], [3, 3, 2, 1, 0, 12, 11]]


def probe():
    some = Sequences(torch.zeros(2, CONTEXT, dtype=torch.long), torch.full((2,), 6))
    never = Origin(VOCABULARY, 0, lambda: pytest.fail("no text"), lambda: pytest.fail("no text"))
    return Probe(some, some, never)


def test_its_value_is_minus_the_mean_loss_of_its_tokens():
    flat = trainer_of().flat
    expected = []
    for each in SEQUENCES:
        one = ProbeTokens(torch.tensor([each]), torch.tensor([len(each) - 1]))
        expected.append(float(one.losses(flat.model, one.tokens).detach()))
    value = found_mechanism("a cluster", SEQUENCES).value(flat.model, probe())
    assert float(value.detach()) == pytest.approx(-sum(expected) / len(expected), abs=1e-12)
    assert float(flat.gradient(value).norm()) > 0


def test_its_file_is_found_by_name_and_says_the_same(tmp_path):
    (tmp_path / "found_it.py").write_text(mechanism_file("cluster 0 of run a.b.s0", SEQUENCES))
    found = discover(tmp_path)["found_it"]
    flat, here = trainer_of().flat, found_mechanism("x", SEQUENCES)
    assert float(found.value(flat.model, probe()).detach()) == float(here.value(flat.model, probe()).detach())
    assert "cluster 0 of run a.b.s0" in found.meaning


def loss_behind(model, context, token):
    with torch.no_grad():
        return float(-model(torch.tensor([context]))[0, -1].log_softmax(-1)[token])


def test_the_worth_of_order_is_the_loss_behind_other_orders_that_keep_the_token_before_minus_that_behind_its_own():
    flat, some = trainer_of().flat, probe()
    mechanism = order_mechanism("a cluster", SEQUENCES)
    data = some.of(mechanism.name, mechanism.data)
    count, own, other = len(SEQUENCES), [], []
    assert len(data.tokens) == 3 * count
    for row, each in enumerate(SEQUENCES):
        own.append(loss_behind(flat.model, each[:-1], each[-1]))
        for order in (1, 2):
            *context, last = data.tokens[row + order * count, : len(each)].tolist()
            assert sorted(context) == sorted(each[:-1])
            assert [context[-1], last] == each[-2:], "the token before it stays, and is all that two tokens have"
            other.append(loss_behind(flat.model, context, last))
    assert not torch.equal(data.tokens[count : 2 * count], data.tokens[2 * count :])
    value = mechanism.value(flat.model, some)
    assert float(value.detach()) == pytest.approx(sum(other) / len(other) - sum(own) / len(own), abs=1e-6)
    assert float(flat.gradient(value).norm()) > 0


def test_corrupted_data_of_the_worth_of_order_have_other_orders_everywhere():
    mechanism, some = order_mechanism("a cluster", SEQUENCES), probe()
    clean, corrupted = (some.of(mechanism.name, each) for each in (mechanism.data, mechanism.corrupted))
    count = len(SEQUENCES)
    clean = clean.tokens
    assert torch.equal(clean[count:], corrupted[count:])
    assert not torch.equal(clean[:count], corrupted[:count])
    assert torch.equal(clean.sort(1).values, corrupted.sort(1).values)


def test_a_cluster_by_needs_is_written_as_what_order_is_worth_to_it(tmp_path):
    (tmp_path / "found_it.py").write_text(mechanism_file("cluster 0 of run a.b.s0", SEQUENCES, by_needs=True))
    found, some = discover(tmp_path)["found_it"], probe()
    here = replace(order_mechanism("x", SEQUENCES), name="found_it")  # orders are drawn by name
    model = trainer_of().flat.model
    assert float(found.value(model, some).detach()) == float(here.value(model, some).detach())
    assert found.sign == 1


def test_corrupted_data_have_the_same_tokens_before_the_predicted_one_in_another_order():
    mechanism, some = found_mechanism("a cluster", SEQUENCES), probe()
    clean = some.of("m", mechanism.data)
    corrupted = some.of("c", mechanism.corrupted)
    assert clean.tokens.shape == corrupted.shape
    for before, after, each in zip(clean.tokens.tolist(), corrupted.tolist(), SEQUENCES, strict=True):
        assert before[: len(each)] == each
        assert after[len(each) - 1] == each[-1]
        assert sorted(after[: len(each) - 1]) == sorted(each[:-1])
    assert not torch.equal(clean.tokens, corrupted)


def test_tokens_of_another_vocabulary_or_a_longer_context_are_refused_in_words():
    flat = trainer_of().flat
    for sequences in ([[1, VOCABULARY]], [[1] * (CONTEXT + 1)]):
        with pytest.raises(MechError, match="do not fit this run"):
            found_mechanism("a cluster", sequences).value(flat.model, probe())


def test_the_ledger_accounts_for_a_found_cluster(local_store, folder, tmp_path, mechanisms_of):
    own = tmp_path / "mechanisms"
    own.mkdir()
    (own / "found_it.py").write_text(mechanism_file("cluster 0 of run a.b.s0", [[40, 41, 42], [50, 51, 50, 51]]))
    mechanisms_of(own)
    spec = tiny.spec_of(
        mechanisms=["found_it"],
        gradients=[],
        formation=[{"mechanism": "found_it", "threshold": -1.0}],
        ledger={"mechanisms": ["found_it"]},
        influence={},
    )
    tiny.train(local_store, spec)
    run = OpenRun(local_store, spec)
    assert compute_ledger(run, run.planned) == len(run.planned) - 1
    sums = "select sum(value::double) as total from ledger where mechanism = 'found_it'"
    begin, end = (run.values_at(run.weights(step), ["found_it"])["found_it"] for step in (0, run.planned[-1]))
    assert abs(end - begin) > 0.01
    assert query(local_store.root, sums)["total"][0] == pytest.approx(end - begin, abs=1e-5)


def test_an_arm_is_trained_without_the_examples_that_a_found_cluster_owes_most_to(local_store, folder, mechanisms_of):
    """The path from a cluster to its causal test: file, ledger, choice, matched choice, event of the cluster's own loss."""
    own = folder / "own_mechanisms"
    own.mkdir()
    (own / "found_it.py").write_text(mechanism_file("cluster 0 of run a.b.s0", [[40, 41, 42], [50, 51, 50, 51]]))
    mechanisms_of(own)
    top = {"by": "ledger", "mechanism": "found_it", "share": 0.2, "do": "delete", "at": 12}
    experiment = experiment_of(
        {"without_top": top, "without_matched": {"like": "without_top"}},
        mechanisms=["found_it"],
        formation=[{"mechanism": "found_it", "threshold": -99.0, "sustain": 1}],
        ledger={"mechanisms": ["found_it"]},
        influence={},
    )
    compute(local_store, experiment)
    root = local_store.root
    kept = query(root, "select example_id from choices where run = 'tiny.without_top.s0' order by rank")["example_id"]
    owed = query(
        root,
        "select example_id, sum(value::double + value_later::double) as total from ledger where term = 'example' and "
        "run = 'tiny.baseline.s0' and mechanism = 'found_it' group by 1 order by total desc",
    )
    assert kept.to_list() == owed["example_id"].to_list()[: len(kept)]
    ends = query(root, "select run, value from mechanism_values where mechanism = 'found_it' and step = 12")
    assert ends["value"].n_unique() == 3, "three trainings: leaving examples out changes the cluster's loss"
    held = query(root, "select arm, reference from comparisons where mechanism = 'found_it'").rows()
    assert ("without_top", "without_matched") in held or ("without_matched", "without_top") in held


PROGRAMMES = {
    "found_causes": (
        {"found_found_baseline_s0_0": 24, "found_found_baseline_s0_1": 49, "induction_copy_advantage": None},
        [Pair("without_named", "without_matched")],
    ),
    "python_causes": (
        {"found_python_discovery_baseline_s0_0": 3 * 45, "found_python_discovery_baseline_s0_1": 3 * 19},
        [Pair("without_tables", "tables_matched"), Pair("without_methods", "methods_matched")],
    ),
}
"""By file: what is marked in the probe data of each event, and the claims."""


@pytest.mark.parametrize("name", PROGRAMMES)
def test_what_was_found_is_a_programme_of_causes(name, mechanisms_of):
    """The clusters that were written are mechanisms of a model like the one they are from, and the claims are compared."""
    folder, (marked, claims) = ROOT / "experiments" / "found", PROGRAMMES[name]
    mechanisms_of(folder / "mechanisms")
    experiment = read_experiment(folder / f"{name}.yaml", ROOT)
    assert [event.signal for event in experiment.formation] == list(marked)
    assert set(claims) <= set(pairs(experiment))
    spec = experiment.runs()[0]
    source = Origin(spec.tokenizer.vocabulary, 0, lambda: pytest.fail("no text"), lambda: pytest.fail("no text"))
    some = Sequences(torch.zeros(2, spec.data.context, dtype=torch.long), torch.full((2,), 6))
    for signal, tokens in marked.items():
        if tokens is not None:
            assert Probe(some, some, source).of(signal, MECHANISMS[signal].data).chosen.sum() == tokens
