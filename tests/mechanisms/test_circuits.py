"""Edges patched exactly, against TransformerLens and by hand; scores that sum to what is to be explained."""

import itertools
from dataclasses import replace

import pytest
import torch
from transformer_lens.tools.analysis.attribution_patching import (
    EdgeAttributionConfig,
    attribution_patch,
    faithfulness,
)

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.circuits.attribution import midpoints
from mech_pipeline.mechanisms.circuits.circuit import Curve, curve, greedy_order, keep, random_order, smallest, subject
from mech_pipeline.mechanisms.circuits.criteria import HALVES, Criteria
from mech_pipeline.mechanisms.circuits.graph import LOGITS, Graph
from mech_pipeline.mechanisms.circuits.patching import Reads
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.readouts.inputs import Contrast
from mech_pipeline.mechanisms.readouts.predictions import logit_difference
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.model import build_model
from tests.support.models import ARCHITECTURES, CONTEXT, VOCABULARY

EXAMPLES = 3
SEPARATE = [name for name in ARCHITECTURES if "shared keys" not in name]


def drawn(seed, count=EXAMPLES):
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, VOCABULARY, (count, CONTEXT), generator=generator)
    correct = torch.randint(0, VOCABULARY - 1, (count,), generator=generator)
    return Contrast(tokens, torch.full((count,), CONTEXT - 2), correct, correct + 1)


def mechanism(count=EXAMPLES, readout=logit_difference):
    made = Mechanism(
        readout=readout,
        data=lambda source: drawn(1, count),
        corrupted=lambda source: drawn(2, count).tokens,
        unit="nats",
        meaning="a logit difference",
    )
    return made


def model_of(spec, scale=2.0):
    """Large weights, so that attention is far from uniform and every edge matters."""
    wrapped = bridge(build_model(spec, VOCABULARY, CONTEXT, 0, for_bridge=True).double()).eval()
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    return wrapped


@pytest.fixture(params=SEPARATE)
def patching(request, tiny_probe):
    return subject(model_of(ARCHITECTURES[request.param]), mechanism(), tiny_probe)


def random_edges(graph, seed, share=0.5):
    chosen = torch.rand(graph.edges.shape, generator=torch.Generator().manual_seed(seed)) < share
    return chosen & graph.edges


def test_all_edges_are_the_clean_run_and_none_the_corrupted(patching):
    clean, corrupted = drawn(1), drawn(2)
    for kept, tokens in ((torch.ones_like, clean.tokens), (torch.zeros_like, corrupted.tokens)):
        with torch.no_grad():
            expected = patching.metric(Reads(lambda read, tokens=tokens: patching.bridge(tokens), clean.tokens))
        assert patching.value(kept(patching.graph.edges)) == pytest.approx(float(expected), rel=1e-6)
    nothing, everything = patching.ends()
    assert abs(everything - nothing) > 1e-3, "else the test says little"


def test_edges_out_of_the_input_sum_to_the_whole_difference(patching):
    """Completeness of integrated gradients (Sundararajan et al. 2017): exact in the limit of many points."""
    nothing, everything = patching.ends()
    errors = [abs(float(patching.scores(midpoints(n))[0].sum()) - (everything - nothing)) for n in (16, 64)]
    assert errors[1] < 2e-3 * abs(everything - nothing)
    assert errors[1] < errors[0] / 4, "midpoints converge with the square of their number"


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox"])
def test_patching_and_plain_scores_agree_with_transformer_lens(name, tiny_probe):
    """TransformerLens has an edge for every position: ours is all of them at once."""
    wrapped = model_of(ARCHITECTURES[name])
    ours = subject(wrapped, mechanism(1), tiny_probe)
    clean, corrupted = drawn(1, 1), drawn(2, 1)

    def metric(logits):
        position = int(clean.position[0])
        return logits[0, position, clean.correct[0]] - logits[0, position, clean.wrong[0]]

    theirs = attribution_patch(
        wrapped, clean.tokens, corrupted.tokens, metric, EdgeAttributionConfig(granularity="edge")
    )
    summed = torch.zeros_like(ours.scores([0.0]))
    place = {
        edge: (ours.graph.writers.index(our_name(edge[0])), ours.graph.readers.index(our_name(edge[1])))
        for edge in theirs.edge_scores
    }
    for edge, score in theirs.edge_scores.items():
        summed[place[edge]] += score
    assert set(place.values()) == set(ours.graph.places)
    torch.testing.assert_close(ours.scores([0.0]), summed, rtol=1e-5, atol=1e-8)

    nothing, everything = ours.ends()
    for seed in range(3):
        kept = random_edges(ours.graph, seed)
        expected = faithfulness(
            wrapped, clean.tokens, corrupted.tokens, metric, [edge for edge in place if kept[place[edge]]]
        )
        share = (ours.value(kept) - nothing) / (everything - nothing)
        assert share == pytest.approx(expected.recovered, rel=1e-5, abs=1e-7)


def our_name(node):
    names = {"embed": "input", "logits": "logits", "mlp_in": f"m{node.layer}", "mlp_out": f"m{node.layer}"}
    kind = node.kind[0]
    head = f"a{node.layer}.h{node.head}"
    return names.get(node.kind) or (head if node.kind == "attn_head_out" else f"{head}<{kind}>")


@pytest.mark.parametrize("seed", range(3))
def test_patching_equals_attention_written_out_by_hand(seed, tiny_probe):
    """Every head computed of its own three inputs, edge by edge, for the native model without norms."""
    wrapped = model_of(ARCHITECTURES["attention-only"])
    ours = subject(wrapped, mechanism(), tiny_probe)
    kept, graph = random_edges(ours.graph, seed), ours.graph
    model = wrapped.original_model
    length = CONTEXT
    positions = model.pos(torch.arange(length)) if hasattr(model, "pos") else wrapped.pos_embed.W_pos[:length]
    clean = {"input": wrapped.embed.W_E[drawn(1).tokens]}
    corrupted = {name: ours.corrupted[:, :, index] for index, name in enumerate(graph.writers)}

    def read(reader, constant):
        column = graph.readers.index(reader)
        total = constant
        for row, writer in enumerate(graph.writers):
            if graph.edges[row, column]:
                total = total + (clean if kept[row, column] else corrupted)[writer]
        return total

    constant = positions
    for layer in range(graph.layers):
        block = wrapped.blocks[layer].attn
        for head in range(graph.heads):
            q, k, v = (
                read(f"a{layer}.h{head}<{kind}>", constant) @ getattr(block, f"W_{kind.upper()}")[head]
                + getattr(block, f"b_{kind.upper()}")[head]
                for kind in "qkv"
            )
            scores = q @ k.transpose(1, 2) / wrapped.cfg.d_head**0.5
            pattern = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1)
            clean[f"a{layer}.h{head}"] = pattern @ v @ block.W_O[head]
        constant = constant + block.b_O
    logits = read("logits", constant) @ wrapped.W_U + wrapped.b_U
    expected = float(ours.metric(Reads(lambda tokens: logits, drawn(1).tokens)).detach())
    assert ours.value(kept) == pytest.approx(expected, rel=1e-9)
    assert expected != pytest.approx(ours.ends()[1], rel=1e-3)


def test_scores_of_edges_into_logits_are_their_effects_without_a_final_norm(tiny_probe):
    ours = subject(model_of(ARCHITECTURES["attention-only"]), mechanism(), tiny_probe)
    scores, whole, last = ours.scores([1.0]), ours.ends()[1], ours.graph.readers.index("logits")
    for writer in range(len(ours.graph.writers)):
        kept = ours.graph.edges.clone()
        kept[writer, last] = False
        assert float(scores[writer, last]) == pytest.approx(whole - ours.value(kept), rel=1e-6, abs=1e-9)


def test_every_score_is_the_effect_of_its_edge_when_little_is_corrupted(patching):
    """To first order; the change of each writer is taken small, whatever the corrupted tokens would make of it."""
    single = patching.bridge.cfg.normalization_type == "RMS"  # that norm is computed in float32
    little = replace(
        patching, corrupted=patching.clean + (3e-3 if single else 1e-5) * (patching.corrupted - patching.clean)
    )
    scores, effects = little.scores([1.0]), torch.zeros_like(patching.scores([1.0]))
    for place in patching.graph.places:
        sides = []
        for sign in (1, -1):  # both sides, so that second orders cancel
            other = patching.clean + sign * (little.corrupted - patching.clean)
            kept = patching.graph.edges.clone()
            kept[place] = False
            sides.append(replace(patching, corrupted=other).value(kept))
        effects[place] = (sides[1] - sides[0]) / 2
    error = float((scores - effects).norm() / effects.norm())
    assert error < (2e-3 if single else 1e-6)


def test_a_greedy_order_has_every_edge_once_and_all_beginnings_lead_to_the_logits():
    graph = Graph(layers=2, heads=2, mlps=True)
    scores = torch.randn(graph.edges.shape, generator=torch.Generator().manual_seed(0)) * graph.edges
    order = greedy_order(graph, scores)
    assert sorted(order) == graph.places
    reached = {graph.readers.index("logits")}
    for writer, reader in order:
        assert reader in reached
        reached |= {r for r in range(len(graph.readers)) if graph.source_of(r) == writer}
    best = max((abs(float(scores[place])), place) for place in graph.places if graph.readers[place[1]] == "logits")
    assert order[0] == best[1]


@pytest.mark.parametrize(("mlps", "parallel"), list(itertools.product([False, True], repeat=2)))
def test_edges_go_from_what_writes_before_to_what_reads_after(mlps, parallel):
    graph = Graph(2, 3, mlps, parallel)
    edge = {(graph.writers[w], graph.readers[r]) for w, r in graph.places}
    assert ("input", "a0.h0<q>") in edge
    assert ("a0.h1", "a1.h2<k>") in edge
    assert ("a1.h1", "logits") in edge
    assert not {("a0.h1", "a0.h2<q>"), ("a1.h0", "a0.h0<v>")} & edge
    assert (("a0.h0", "m0") in edge) == (mlps and not parallel)
    assert (("m0", "a1.h0<v>") in edge) == mlps
    heads, writers = 3, 1 + 3 + mlps
    assert len(edge) == 3 * heads * (1 + writers) + (
        (1 + 3 * (not parallel) + writers + 3 * (not parallel)) if mlps else 0
    ) + (1 + 2 * (3 + mlps))


def test_areas_of_known_curves():
    assert (Curve([0, 50, 100], [0.0, 0.5, 1.0]).cpr, Curve([0, 50, 100], [0.0, 0.5, 1.0]).cmd) == (0.5, 0.5)
    assert Curve([0, 10], [1.0, 1.0]).cmd == 0.0
    assert Curve([0, 10], [3.0, 3.0]).cmd == 2.0, "too much is as wrong as too little"
    assert Curve([0, 10], [3.0, 3.0]).cpr == 3.0


def test_curves_begin_at_nothing_and_end_at_everything(patching):
    ends = patching.ends()
    order = greedy_order(patching.graph, patching.scores())
    found = curve(patching, order, ends)
    assert (found.edges[0], found.edges[-1]) == (0, len(patching.graph.places))
    assert found.faithfulness[0] == pytest.approx(0, abs=1e-9)
    assert found.faithfulness[-1] == pytest.approx(1, rel=1e-9)
    number = smallest(patching, order, ends)
    share = [
        (patching.value(keep(patching.graph, order[:n])) - ends[0]) / (ends[1] - ends[0]) for n in (number - 1, number)
    ]
    assert share[0] < 0.8 <= share[1]
    assert sorted(random_order(patching.graph, 0)) == patching.graph.places


def test_what_cannot_be_patched_is_said(tiny_probe):
    with pytest.raises(MechError, match="heads share them"):
        subject(model_of(ARCHITECTURES["llama with shared keys"]), mechanism(), tiny_probe)
    with pytest.raises(MechError, match="no corrupted data"):
        subject(
            model_of(ARCHITECTURES["attention-only"]),
            Mechanism(readout=logit_difference, data=lambda source: drawn(1), unit="nats", meaning="one"),
            tiny_probe,
        )
    reads_others = mechanism(readout=lambda model, data: model(data.tokens.flip(0)).sum())
    with pytest.raises(MechError, match="other tokens"):
        subject(model_of(ARCHITECTURES["attention-only"]), reads_others, tiny_probe).ends()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.slow
def test_criteria_compare_the_sets_of_edges_that_they_say(patching, seed):
    """Each trial against patching done by hand, edge set by edge set."""
    ends, places = patching.ends(), patching.graph.places
    order = greedy_order(patching.graph, patching.scores([0.5]))
    circuit = order[:6]
    criteria = Criteria(patching, circuit, ends, seed)

    def faithfulness(edges):
        return (patching.value(keep(patching.graph, edges)) - ends[0]) / (ends[1] - ends[0])

    complete, minimal = criteria.completeness(), criteria.minimality()
    assert [trial.removed for trial in complete[:6]] == [(edge,) for edge in circuit]
    assert 6 < len(complete) <= 6 + HALVES
    for trial in complete:
        assert set(trial.removed) <= set(circuit)
        assert trial.faithfulness == pytest.approx(faithfulness([e for e in circuit if e not in trial.removed]))
        assert trial.reference == pytest.approx(faithfulness([e for e in places if e not in trial.removed]))
    assert [trial.edge for trial in minimal] == circuit
    for trial in minimal:
        left = [e for e in circuit if e not in trial.removed]
        assert trial.edge in left
        assert trial.reference == pytest.approx(faithfulness(left))
        assert trial.faithfulness == pytest.approx(faithfulness([e for e in left if e != trial.edge]))
        alone = abs(faithfulness(circuit) - faithfulness([e for e in circuit if e != trial.edge]))
        assert trial.difference >= alone - 1e-9, "at least what it adds to the whole circuit"


def test_the_whole_model_is_complete_and_an_edge_without_effect_is_idle(patching):
    ends, graph = patching.ends(), patching.graph
    everything = Criteria(patching, graph.places, ends)
    assert max(trial.difference for trial in everything.completeness()) == 0
    unreachable = [place for place in graph.places if graph.readers[place[1]] != LOGITS]
    lonely = next(p for p in unreachable if graph.source_of(p[1]) is not None)
    direct = next(p for p in graph.places if graph.readers[p[1]] == LOGITS and p[0] != graph.source_of(lonely[1]))
    (first, second) = Criteria(patching, [direct, lonely], ends).minimality()
    assert second.difference == pytest.approx(0, abs=1e-9), "what it feeds is not read by anything in the circuit"
    assert first.difference > 0
