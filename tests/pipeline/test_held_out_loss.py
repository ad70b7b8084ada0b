"""Every checkpoint has its held-out loss by default; what was stored before stays as it is."""

import pytest
import torch

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.mechanisms.library.held_out import windows
from mech_pipeline.mechanisms.source import ProbeSource
from mech_pipeline.pipeline import alone
from mech_pipeline.pipeline.plan import Plan
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.analysis import HELD_OUT
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading.query import query
from tests.support import tiny

SMALL = {"influence": {}, "seeds": [0], "arms": {"baseline": {}}}
RUN = "tiny.baseline.s0"


def asked(**change):
    experiment = parse_experiment(tiny.TINY | SMALL | change)
    specs = experiment.runs()
    return specs, {spec.run: corpus_sha256(read_corpus(spec.corpus)) for spec in specs}, experiment


@pytest.mark.slow
def test_a_store_from_before_gets_one_value_per_checkpoint_and_nothing_else(tmp_path, monkeypatch, local_store):
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    specs, corpora, experiment = asked()
    alone.compute_all(local_store, specs, corpora, experiment)
    before = query(
        local_store.root, f"select * from mechanism_values where mechanism <> '{HELD_OUT}' order by all"
    ).rows()
    assert "held_out_loss" not in query(local_store.root, "select spec from runs").item(), "as it was written then"

    specs, corpora, experiment = asked(held_out_loss=True)
    plan = Plan(local_store, specs, corpora, experiment)
    plan.look()
    assert plan.ready(RUN).keys() <= {"spec", "compaction"}, "the run's description has changed"
    assert {stage for stage, _ in alone.compute_all(local_store, specs, corpora, experiment)} <= {
        *("spec", "analysis", "report", "compaction")
    }
    after = query(
        local_store.root, f"select * from mechanism_values where mechanism <> '{HELD_OUT}' order by all"
    ).rows()
    assert after == before
    values = query(local_store.root, "select step, loss_nats from held_out_loss order by step").rows()
    assert [step for step, _ in values] == list(specs[0].checkpoint_steps())

    opened, (last, stored) = OpenRun(local_store, specs[0]), values[-1]
    probe = opened.tokens.probe
    marked = windows(ProbeSource(HELD_OUT, probe.tiled, probe.random, probe.origin))
    opened.trainer.flat.load(opened.weights(last))
    logits = opened.trainer.flat.model(marked.tokens)
    by_hand = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), marked.tokens[:, 1:].flatten())
    assert stored == pytest.approx(float(by_hand.detach()), rel=1e-5)


def test_windows_are_no_longer_than_the_text_that_is_held_out(tmp_path, monkeypatch, local_store):
    (tmp_path / "text").mkdir()
    for number in range(40):
        (tmp_path / "text" / f"{number}.txt").write_text(f"short text {number} of a few words " * 2)
    monkeypatch.chdir(tmp_path)
    spec = tiny.spec_of(data=tiny.TINY["data"] | {"context": 64, "plain": 0.0, "tiled": 1.0})
    tiny.prepare(local_store, spec)
    probe = OpenRun(local_store, spec).tokens.probe
    source = ProbeSource(HELD_OUT, probe.tiled, probe.random, probe.origin)
    longest = max(len(document) for document in source.held_out_documents())
    assert longest < 64
    assert windows(source).tokens.shape == (len(probe.tiled.tokens), longest)
