"""A model and a loop that this project knows nothing of: plain PyTorch and `transformers`."""

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from mech_pipeline.attribution.record import TrainingRecord

VOCABULARY, CONTEXT = 11, 8
TOKENS = torch.randint(0, VOCABULARY, (24, CONTEXT), generator=torch.Generator().manual_seed(0))
ORDER = torch.stack([torch.randperm(24, generator=torch.Generator().manual_seed(s))[:4] for s in range(12)])


class Bigrams(nn.Module):
    """Nothing like a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(VOCABULARY, 6), nn.Linear(6, VOCABULARY)

    def forward(self, tokens):
        return self.out(torch.tanh(self.embed(tokens)))


def gpt2():
    sizes = {"n_positions": CONTEXT, "n_embd": 8, "n_layer": 2, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **sizes))


def llama():
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, **sizes))


MODELS = {"bigrams": Bigrams, "gpt2": gpt2, "llama": llama}
OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, eps=1e-3, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, eps=1e-3, weight_decay=0.05),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.8),
}


def losses(model, tokens, weights=None):
    tokens = tokens.to(next(model.parameters()).device)
    result = model(tokens[:, :-1])
    logs = torch.log_softmax(getattr(result, "logits", result), dim=-1)
    each = -logs.gather(-1, tokens[:, 1:, None])[..., 0].mean(1)
    return (each if weights is None else each * weights).mean()


def train(model, make_optimizer, *, rates=None, clip=None, weights=None, record=True, order=ORDER, halves=False):
    """A plain loop; gives the record.

    Args:
        halves: the loss is the mean of those of two micro-batches, which rounds otherwise.
    """
    optimizer = make_optimizer(model.parameters())
    made = TrainingRecord(model, TOKENS, ORDER, optimizer, learning_rates=rates or (), clip_norm=clip)
    for step, batch in enumerate(order):
        if record and step in (0, 5):
            made.keep(step, optimizer)
        for group in optimizer.param_groups:
            group["lr"] = rates[step] if rates else group["lr"]
        parts = [batch[:2], batch[2:]] if halves else [batch]
        loss = sum(losses(model, TOKENS[part], None if weights is None else weights[part]) for part in parts) / len(
            parts
        )
        optimizer.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    made.keep(len(order), optimizer)
    return made


def readout(model):
    return losses(model, TOKENS[:3])
