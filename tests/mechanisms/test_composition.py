"""Composition scores of all pairs of heads and their null: TransformerLens, whole matrices, heads built by hand."""

import math

import pytest
import torch

from mech_pipeline.mechanisms.detectors.composition import composition_scores, excess, random_rotation
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.readouts import composition
from mech_pipeline.mechanisms.registry import DETECTORS
from mech_pipeline.spec.model import Model
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.model import build_model
from tests.support.induction import LENGTH, SIZE, induction_by_k, induction_by_q, repeated
from tests.support.models import ARCHITECTURES, CONTEXT, VOCABULARY

KINDS = "QKV"
THREE = {name: spec.model_copy(update={"layers": 3}) for name, spec in ARCHITECTURES.items()}


def detectors(wrapped):
    probe = Probe(repeated(), repeated())
    return {kind: DETECTORS[f"{kind.lower()}_composition"].score(wrapped, [], probe) for kind in KINDS}


@pytest.mark.parametrize("architecture", THREE)
@pytest.mark.parametrize("kind", KINDS)
def test_raw_scores_are_those_of_transformer_lens_and_of_the_readout(architecture, kind):
    spec = THREE[architecture]
    trained = build_model(spec, VOCABULARY, CONTEXT, 0)
    wrapped = bridge(build_model(spec, VOCABULARY, CONTEXT, 0, for_bridge=True))
    found = composition_scores(wrapped, kind)
    assert found.score.shape == (3, spec.heads, 3, spec.heads)
    theirs = wrapped.all_composition_scores(kind).scores.detach().double()
    assert torch.allclose(found.score, theirs, atol=1e-5)
    for sender, receiver in (((0, 1), (1, 0)), ((0, 0), (2, 1)), ((1, 1), (2, 0))):
        one = float(composition(kind, sender, receiver)(trained, None).detach())
        assert float(found.score[*sender, *receiver]) == pytest.approx(one, abs=1e-5)
    later = torch.ones(3, 3).tril().bool()  # [sender layer, receiver layer]: not an earlier sender
    for part in (found.score, found.null_mean, found.null_sd):
        assert not part.permute(0, 2, 1, 3)[later].any()
        assert (part.permute(0, 2, 1, 3)[~later] > 0).all()


def test_the_null_is_the_score_of_whole_matrices_around_a_rotation():
    wrapped = bridge(build_model(THREE["attention-only"], VOCABULARY, CONTEXT, 0, for_bridge=True))
    query, key, value, output = (w.detach().double() for w in (wrapped.W_Q, wrapped.W_K, wrapped.W_V, wrapped.W_O))
    generator = torch.Generator().manual_seed(0)
    turns = [random_rotation(8, generator) for _ in range(400)]
    reads, writes = query[2, 1] @ key[2, 1].T, (value[0, 0] @ output[0, 0]).T  # [d_model, d_model], columns in
    slow = torch.stack([(reads @ turn @ writes).norm() / (reads.norm() * writes.norm()) for turn in turns])
    null = composition_scores(wrapped, "K", draws=400)
    error = 4 * float(slow.std()) / math.sqrt(400)
    assert float(null.null_mean[0, 0, 2, 1]) == pytest.approx(float(slow.mean()), abs=error)
    assert float(null.null_sd[0, 0, 2, 1]) == pytest.approx(float(slow.std()), rel=0.2)


@pytest.mark.parametrize("architecture", THREE)
def test_the_mean_square_of_the_null_is_one_over_the_width(architecture):
    """E ‖A R B‖² = ‖A‖² ‖B‖² / d for uniform R, whatever A and B."""
    wrapped = bridge(build_model(THREE[architecture], VOCABULARY, CONTEXT, 0, for_bridge=True))
    for kind in KINDS:
        found = composition_scores(wrapped, kind, draws=200)
        squares = found.null_mean[0, :, 2].square() + found.null_sd[0, :, 2].square()
        assert torch.allclose(squares, torch.full_like(squares, 1 / 8), rtol=0.25)


def test_rotations_are_orthogonal_uniform_and_the_same_every_time():
    generator = torch.Generator().manual_seed(0)
    turns = torch.stack([random_rotation(5, generator) for _ in range(2000)])
    assert torch.allclose(turns @ turns.mT, torch.eye(5, dtype=torch.float64).expand_as(turns), atol=1e-12)
    assert torch.allclose(turns.mean(0), torch.zeros(5, 5).double(), atol=0.05)  # QR alone has a biased diagonal
    wrapped = bridge(build_model(THREE["attention-only"], VOCABULARY, CONTEXT, 0, for_bridge=True))
    one, two = (composition_scores(wrapped, "K") for _ in range(2))
    assert torch.equal(one.null_mean, two.null_mean)


@pytest.mark.parametrize(("kind", "make"), [("K", induction_by_k), ("Q", induction_by_q)])
def test_an_induction_head_built_by_hand_shows_by_which_composition(kind, make):
    model = build_model(Model(layers=2, heads=1, d_model=72, d_head=24), SIZE, LENGTH, 0, for_bridge=True)
    model.load_state_dict({name: tensor.float() for name, tensor in make().state_dict().items()})
    found = {each: float(score[1, 0]) for each, score in detectors(bridge(model)).items()}
    assert found.pop(kind) > 0.05
    assert all(value < 0 for value in found.values()), "they read nothing of it: below chance"


@torch.no_grad()
def test_the_best_sender_counts_and_untrained_heads_are_at_chance():
    wrapped = bridge(build_model(Model(layers=3, heads=4, d_model=64), VOCABULARY, CONTEXT, 0, for_bridge=True))
    chance = detectors(wrapped)
    assert max(float(score.abs().max()) for score in chance.values()) < 0.02
    assert all(not score[0].any() for score in chance.values())
    wrapped.blocks[2].attn.k.weight[16:32] = wrapped.blocks[0].attn.o.weight[:, 48:].T  # head 1 reads head 3
    found = detectors(wrapped)
    scores = composition_scores(wrapped, "K")
    assert float(found["K"][2, 1]) == float((scores.score - scores.null_mean)[0, 3, 2, 1]) > 0.1
    assert torch.equal(found["K"].argmax(), torch.tensor(2 * 4 + 1))
    assert torch.equal(found["V"], chance["V"])


@torch.no_grad()
def test_heads_that_write_nothing_score_nothing():
    wrapped = bridge(build_model(THREE["attention-only"], VOCABULARY, CONTEXT, 0, for_bridge=True))
    wrapped.blocks[0].attn.o.weight.zero_()
    found = composition_scores(wrapped, "V")
    assert not found.score[0].any()
    assert bool(excess(found).isfinite().all())
