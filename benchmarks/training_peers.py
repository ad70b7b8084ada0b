"""The loops that training is measured against, at the same shapes: a plain nanoGPT-style one, and TransformerLens' own."""

import contextlib
import io
import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from mech_pipeline.spec.model import Model
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.model import build_model


class PlainBlock(nn.Module):
    """Pre-norm block with one matrix for queries, keys and values, and fused attention."""

    def __init__(self, width: int, heads: int, d_mlp: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, d_mlp), nn.GELU(), nn.Linear(d_mlp, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).split(width, dim=2)
        query, key, value = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class PlainGPT(nn.Module):
    """A GPT of the shape of a native model with layer norm, learned positions and an MLP."""

    def __init__(self, spec: Model, vocabulary: int, context: int) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, spec.d_model), nn.Embedding(context, spec.d_model)
        blocks = [PlainBlock(spec.d_model, spec.heads, spec.d_mlp or 4 * spec.d_model) for _ in range(spec.layers)]
        self.blocks, self.norm = nn.Sequential(*blocks), nn.LayerNorm(spec.d_model)
        self.head = nn.Linear(spec.d_model, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.tokens(tokens) + self.positions(places))))


class PlainLoop:
    """get batch, forward, backward, clip, AdamW: what nanoGPT does in a step."""

    def __init__(self, spec: Model, pool: Tensor, vocabulary: int, batch: int) -> None:
        self.model = PlainGPT(spec, vocabulary, pool.shape[1]).to(pool.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3, betas=(0.9, 0.999), weight_decay=0.01)
        self.pool, self.batch = pool, batch

    def updates(self, count: int) -> None:
        for _ in range(count):
            tokens = self.pool[torch.randint(len(self.pool), (self.batch,))]
            logits = self.model(tokens[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()


class _Rows(Dataset[dict[str, Tensor]]):
    def __init__(self, pool: Tensor) -> None:
        self.pool = pool

    def __len__(self) -> int:
        return len(self.pool)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"tokens": self.pool[index]}


class TransformerLensLoop:
    """`transformer_lens.tools.training.train` on the same model, through its bridge."""

    def __init__(self, spec: Model, pool: Tensor, vocabulary: int, batch: int) -> None:
        self.model = bridge(build_model(spec, vocabulary, pool.shape[1], 0, for_bridge=True))
        self.pool, self.batch = pool, batch

    def updates(self, count: int) -> None:
        from transformer_lens.tools.training import TrainConfig, train

        rows = _Rows(self.pool[torch.randint(len(self.pool), (self.batch * count,))])
        config = TrainConfig(1, self.batch, lr=3e-3, max_grad_norm=1.0, weight_decay=0.01, optimizer_name="AdamW")
        config.device, config.print_every = str(self.pool.device), None
        with (
            open(os.devnull, "w") as nothing,
            contextlib.redirect_stderr(nothing),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            train(self.model, config, rows)
