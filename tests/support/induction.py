"""Sequences that repeat, and models whose induction heads are built by hand."""

import torch

from mech_pipeline.data.examples import draw_random_repeats
from mech_pipeline.mechanisms.sequences import Sequences
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.training.model import build_model


def repeated(count=4, context=32, vocabulary=50, seed=0):
    drawn = draw_random_repeats(vocabulary, count, context, numpy_generator(seed, "probe"))
    return Sequences(torch.from_numpy(drawn.tokens).long(), torch.from_numpy(drawn.period).long())


SIZE, LENGTH = 12, 24  # of the vocabulary and the context of the models that are built by hand
TOKEN, PLACE, NOTE, ANSWER = (slice(0, 12), slice(12, 36), slice(36, 60), slice(60, 72))
"""Parts of the residual stream: the token, its position, what the first layer writes, what the second writes."""


def by_hand():
    """Two layers of one head, all weights zero but embeddings and unembedding."""
    spec = Model(layers=2, heads=1, d_model=72, d_head=24)
    model = build_model(spec, SIZE, LENGTH, 0).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.tok_embed.weight[:, TOKEN] = torch.eye(SIZE).double()
        model.pos.weight[:, PLACE] = torch.eye(LENGTH).double()
        model.head.weight[:, ANSWER] = 20 * torch.eye(SIZE).double()
        copier = model.layers[1].attn
        copier.v.weight[:SIZE, TOKEN] = torch.eye(SIZE).double()
        copier.o.weight[ANSWER, :SIZE] = torch.eye(SIZE).double()
    return model


def induction_by_k():
    """First layer: the previous token is noted. Second: look for a note that is the current token."""
    model = by_hand()
    first, second = (block.attn for block in model.layers)
    with torch.no_grad():
        first.q.weight[:, PLACE] = 100 * torch.eye(LENGTH).double().roll(-1, dims=0)  # query of p is p − 1
        first.k.weight[:, PLACE] = torch.eye(LENGTH).double()
        first.v.weight[:SIZE, TOKEN] = torch.eye(SIZE).double()
        first.o.weight[NOTE, :SIZE] = torch.eye(LENGTH, SIZE).double()
        second.q.weight[:SIZE, TOKEN] = 100 * torch.eye(SIZE).double()
        second.k.weight[:, NOTE] = torch.eye(LENGTH).double()
    return model


def induction_by_q():
    """First layer: where the token was before, plus one. Second: look at the place that is noted."""
    model = by_hand()
    first, second = (block.attn for block in model.layers)
    with torch.no_grad():
        first.q.weight[:SIZE, TOKEN] = 100 * torch.eye(SIZE).double()
        first.k.weight[:SIZE, TOKEN] = torch.eye(SIZE).double()
        first.v.weight[:, PLACE] = torch.eye(LENGTH).double()
        first.o.weight[NOTE] = torch.eye(LENGTH).double().roll(1, dims=0)  # p becomes p + 1; the present one is masked
        second.q.weight[:, NOTE] = 200 * torch.eye(LENGTH).double()
        second.k.weight[:, PLACE] = torch.eye(LENGTH).double()
    return model
