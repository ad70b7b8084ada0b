"""Brackets of Python source: which are found, which can be asked for, and heads and models that are built by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from mech_pipeline.data.documents import Document
from mech_pipeline.data.python_brackets import CLOSERS, OPENERS, bracket_pairs
from mech_pipeline.data.tokenised import tokenise
from mech_pipeline.data.tokenizer import train_tokenizer
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS
from mech_pipeline.mechanisms.sequences import Sequences
from mech_pipeline.mechanisms.source import HeldOut, Origin, ProbeSource
from mech_pipeline.mechanisms.tasks.brackets import bracket_accuracy, knockout, matching
from mech_pipeline.mechanisms.tasks.python_brackets import (
    MORE_CLOSINGS,
    closings,
    exchanged_openers,
    opener_effect,
    with_exchanged,
)
from mech_pipeline.mechanisms.tasks.python_closings import places
from mech_pipeline.spec.model import Model
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.model import build_model

CONTEXT = 48
VARIED = "value = one(a1, b2) + two[i + 1] + {k: v, w: x}\nname = f(x * y, [p + q, r + s], {m: n})  # a comment (\n"


def probe_of(texts, context=CONTEXT, vocabulary=257):
    """Held-out documents and a tokenizer trained on them; with 257 entries nothing but bytes and one merge."""
    documents = [Document("test", f"{number}.py", text) for number, text in enumerate(texts)]
    tokenizer = train_tokenizer(documents, vocabulary)
    sequences = Sequences(torch.zeros(2, context, dtype=torch.long), torch.full((2,), 8))
    held = HeldOut(tokenise(tokenizer, documents), np.ones(len(documents), dtype=bool))
    return Probe(sequences, sequences, Origin(tokenizer.get_vocab_size(), 0, lambda: tokenizer, lambda: held))


def asked(probe):
    """(kind, text between opener and closing bracket, how many openers of its depth are closed) of every place."""
    source = ProbeSource("test", probe.tiled, probe.random, probe.origin)
    return [
        (place.kind, source.tokenizer.decode(place.tokens[place.opener : place.query + 1].tolist()), len(place.closed))
        for place in places(source)
    ]


@pytest.fixture(scope="module")
def probe():
    """Names, numbers and layout vary; each document has a dozen closings of every kind."""
    lines = [
        f"a{n} = f(x{n} + y, {n})\nb = t[i + {n}] + g[{n}, j]\nc = {{k{n}: v, {n}: w}}\nd = h(p, [q, {n}], {{r: s}})\n"
        for n in range(60)
    ]
    return probe_of(["".join(lines[begin : begin + 6]) for begin in range(0, 60, 6)])


@pytest.fixture(scope="module")
def data(probe):
    return probe.of(*MORE_CLOSINGS)


def test_brackets_in_strings_and_comments_do_not_count():
    text = 'f(a, ")]", [1])  # ({\ns = """\n(\n"""\nt = f"{x[0]} ({y}"\nü = {"é": (2,\n 3)}\n'
    kinds = [(OPENERS[pair.kind], pair.depth) for pair in bracket_pairs(text)]
    assert kinds == [("(", 0), ("[", 1), ("{", 0), ("(", 1)]
    for pair in bracket_pairs(text):
        content = text.encode()
        assert content[pair.opener : pair.opener + 1].decode() == OPENERS[pair.kind]
        assert content[pair.closer : pair.closer + 1].decode() == CLOSERS[pair.kind]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_byte_offsets_hold_whatever_ends_a_line(line_end):
    text = line_end.join(["x = 'ä'", "y = (", " 1,", ")  # \x0c ö", "z = [2]", ""])
    content = text.encode()
    assert [(content[p.opener : p.opener + 1], content[p.closer : p.closer + 1]) for p in bracket_pairs(text)] == [
        (b"(", b")"),
        (b"[", b"]"),
    ]


@pytest.mark.parametrize("text", ["f(", "f)", "f(]", "x = '''", "if x:\n    y\n  z\n", "(]"])
def test_what_is_not_python_is_refused(text):
    with pytest.raises(ValueError, match="not Python source"):
        bracket_pairs(text)


def test_a_snippet_has_exactly_these_closings():
    """Tokens are nearly all single bytes. Left out: what holds less than two tokens, a string, a comment."""
    text = 'a = f(xy) + g(x) + h() + t[(1, 2)] + "(no)" # (no)\nb = {k: v}\n'
    found = asked(probe_of([text], context=128))
    assert found == [(0, "(xy", 0), (1, "[(1, 2)", 3), (0, "(1, 2", 0), (2, "{k: v", 4)]


def test_closings_and_openers_that_are_merged_with_other_brackets_are_left_out():
    line = "x = f((a + b), (c + d)) + g(a, b): (a + b)\n"
    merged = probe_of([line * 40], vocabulary=600)
    vocabulary = merged.origin.tokenizer.get_vocab()
    assert {"))", "):", "(("} <= set(vocabulary)
    assert {spelled for _, spelled, _ in asked(merged)} == {" (a + b"}
    assert {spelled for _, spelled, _ in asked(probe_of([line * 40]))} > {"(a + b", "(c + d", "(a, b"}


def test_only_openers_inside_the_context_count():
    text = "x = f(" + "a + " * 20 + "b)\ny = [1, 2]\n"
    assert [kind for kind, _, _ in asked(probe_of([text], context=48))] == [1]
    assert [kind for kind, _, _ in asked(probe_of([text], context=128))] == [0, 1]


def test_text_that_is_not_python_is_passed_over_and_too_little_of_it_is_named():
    assert asked(probe_of(["(: what (is this", "y = [1, 2]\n"])) == [(1, "[1, 2", 0)]
    with pytest.raises(MechError, match=r"held-out text has 0 closings \) whose opener is in a context of 48 tokens"):
        probe_of(["y = [1, 2]\n" * 9]).of("brackets", closings)
    with pytest.raises(MechError, match=r"held-out text has 1 closings \} whose opener"):
        probe_of([VARIED.split("\n")[0] + "\n" + "y = [1, 2] + (3, 4)\n" * 9]).of("brackets", closings)


def test_a_tokenizer_that_is_not_byte_level_is_named(probe):
    other = train_tokenizer([Document("test", "a", VARIED)], 257)
    other.pre_tokenizer = None
    origin = dataclasses.replace(probe.origin, read_tokenizer=lambda: other)
    with pytest.raises(MechError, match="not byte-level"):
        Probe(probe.tiled, probe.random, origin).of("brackets", closings)


def spelled(probe, tokens):
    return [probe.origin.tokenizer.id_to_token(int(token)) for token in tokens]


def test_kinds_are_asked_for_equally_often_and_each_query_sees_its_opener(data, probe):
    assert data.correct.bincount().tolist() == [48, 48, 48]
    openers = spelled(probe, data.tokens[data.example, data.opener])
    assert all(OPENERS[kind] in opener for kind, opener in zip(data.correct, openers, strict=True))
    assert spelled(probe, data.closers) == list(CLOSERS)
    assert (data.query - data.opener >= 2).all()
    assert data.tokens.shape[1] <= CONTEXT
    texts = dict.fromkeys("".join(spelled(probe, row)) for row in data.tokens)
    assert len(texts) > 130, "texts begin at drawn places"


def test_decoys_are_closed_have_the_depth_and_the_distance_and_are_never_their_own(data, probe):
    some = (data.decoy >= 0).nonzero()[:, 0]
    assert len(some) > 10
    for number in some.tolist():
        looks = int(data.decoy_of[number])
        query, decoy = int(data.query[looks]), int(data.decoy[number])
        assert query - decoy == int(data.query[number] - data.opener[number])
        row = spelled(probe, data.tokens[looks, : query + 1])
        depth = [0]
        for token in row:
            depth.append(depth[-1] + sum(c in OPENERS for c in token) - sum(c in CLOSERS for c in token))
        assert depth[decoy] == depth[int(data.opener[looks])], (
            "brackets open before each, counted from the text's begin"
        )
        assert min(depth[decoy + 1 : int(data.opener[looks]) + 1]) == depth[decoy], "closed before the true opener"
        assert looks != number


def score(pattern, probe):
    """Of a bridge around one head that looks as it is told."""
    spec = Model(layers=1, heads=1, d_model=16)
    wrapped = bridge(build_model(spec, 300, CONTEXT, 0, for_bridge=True))
    wrapped.run_with_cache = lambda tokens, names_filter: (None, {"blocks.0.attn.hook_pattern": pattern})
    return float(matching(wrapped, [], probe, MORE_CLOSINGS))


def test_a_head_on_the_opener_scores_one_and_heads_that_go_by_distance_nothing(data, probe):
    count, length = data.tokens.shape
    pattern = torch.zeros(count, 1, length, length)
    pattern[data.example, 0, data.query, data.opener] = 1
    assert score(pattern, probe) >= 0.99
    uniform = torch.tril(torch.ones(length, length)) / torch.arange(1, length + 1)[:, None]
    assert abs(score(uniform.repeat(count, 1, 1, 1), probe)) <= 0.05
    behind = torch.arange(length)[:, None] - torch.arange(length)
    for weight in (1.0 / (behind + 1.0), 0.8 ** behind.clamp_min(0), (behind == 6).double()):
        by_distance = torch.where(behind >= 0, weight, 0.0).float()
        assert score(by_distance.repeat(count, 1, 1, 1), probe) == pytest.approx(0, abs=1e-6), "not of the sum 1: exact"


def test_a_head_on_any_earlier_opener_scores_less_than_nothing(data, probe):
    """It looks at what is closed already, from every query, and never at what is to be closed."""
    count, length = data.tokens.shape
    pattern = torch.zeros(count, 1, length, length)
    some = data.decoy >= 0
    pattern[data.example[data.decoy_of[some]], 0, data.query[data.decoy_of[some]], data.decoy[some]] = 1
    assert score(pattern, probe) == pytest.approx(-1)


class Follows(torch.nn.Module):
    """A model that says what the opener asks for, three nats sure; `blind`: what is written, whatever the opener is."""

    def __init__(self, data, probe, blind):
        super().__init__()
        self.data, self.probe, self.blind = data, probe, blind

    def forward(self, tokens):
        logits = torch.zeros(*tokens.shape, 400)
        openers = spelled(self.probe, tokens[self.data.example, self.data.opener])
        kinds = [next(kind for kind, bracket in enumerate(OPENERS) if bracket in opener) for opener in openers]
        kinds = self.data.correct if self.blind else torch.tensor(kinds)
        logits[self.data.example, self.data.query, self.data.closers[kinds]] = 3.0
        return logits


def test_exchanging_openers_costs_what_is_owed_to_them(probe):
    both = probe.of("brackets", with_exchanged)
    assert float(opener_effect(Follows(both.closings, probe, blind=False), both)) == pytest.approx(4.5)
    assert float(opener_effect(Follows(both.closings, probe, blind=True), both)) == 0
    assert float(bracket_accuracy(Follows(both.closings, probe, blind=True), both.closings)) == 1


def test_only_openers_are_exchanged_and_always_for_another_kind(probe):
    data, other = probe.of("brackets", closings), probe.of("brackets", exchanged_openers)
    changed = (other != data.tokens).nonzero()
    assert changed.tolist() == torch.stack([data.example, data.opener], 1).tolist()
    before, after = (spelled(probe, tokens[data.example, data.opener]) for tokens in (data.tokens, other))
    kinds = {(OPENERS[int(kind)], new[-1]) for kind, new in zip(data.correct, after, strict=True)}
    assert kinds == {(old, new) for old in OPENERS for new in OPENERS if old != new}
    assert all(len(old) == len(new) for old, new in zip(before, after, strict=True))


def test_always_answering_round_is_right_once_in_three(data):
    class Round(torch.nn.Module):
        def forward(self, tokens):
            logits = torch.zeros(*tokens.shape, 400)
            logits[..., data.closers[0]] = 1.0
            return logits

    assert float(bracket_accuracy(Round(), data)) == pytest.approx(1 / 3)


def test_detectors_and_mechanisms_of_the_registry_read_python(probe):
    model = build_model(Model(layers=2, heads=2, d_model=16), 258, CONTEXT, 0, for_bridge=True)
    wrapped = bridge(model)
    for name in ("python_bracket_matching", "python_bracket_knockout"):
        found = DETECTORS[name].score(wrapped, [], probe)
        assert found.shape == (2, 2)
        assert torch.isfinite(found).all()
        assert float(found.abs().max()) > 0
    assert torch.equal(
        DETECTORS["python_bracket_knockout"].score(wrapped, [], probe), knockout(wrapped, [], probe, MORE_CLOSINGS)
    )
    for name in ("python_bracket_logit_difference", "python_bracket_opener_effect"):
        assert MECHANISMS[name].value(build_model(Model(d_model=16), 258, CONTEXT, 0), probe).requires_grad
