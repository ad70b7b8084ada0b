"""Tiny models and trainers on which truths can be computed the slow way."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer
from transformer_lens.model_bridge.sources.native import NativeModel

from mech_pipeline.attribution.per_example.components import Components, components_of
from mech_pipeline.mechanisms.probe import Probe, Sequences
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.mechanisms.source import Origin
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.training import Optimizer, Training
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.model import build_model

VOCABULARY, CONTEXT = 13, 12
CPU = torch.device("cpu")

ARCHITECTURES = {
    "attention-only": Model(layers=2, heads=2, d_model=8),
    "mlp and layer norm": Model(layers=1, heads=2, d_model=8, d_mlp=12, normalization="layer_norm"),
    "rotary, solu and rms norm": Model(
        layers=2, heads=2, d_model=8, d_mlp=8, activation="solu", normalization="rms_norm", positions="rotary"
    ),
    "gpt2": Model(family="gpt2", layers=2, heads=2, d_model=8, d_mlp=12),
    "gpt_neox": Model(family="gpt_neox", layers=1, heads=2, d_model=8, d_mlp=12, rotary_share=0.5),
    "llama with shared keys": Model(family="llama", layers=2, heads=4, kv_heads=2, d_model=8, d_mlp=12),
}
OPTIMIZERS = {
    "adamw, clip and decay": Optimizer(
        learning_rate=2e-2, warmup_steps=3, weight_decay=0.1, clip_norm=0.3, beta2=0.95, eps_root=1e-4
    ),
    "adamw, never clipped": Optimizer(learning_rate=1e-2, warmup_steps=2, clip_norm=None, eps_root=1e-5),
    "adam, coupled decay, cosine": Optimizer(
        kind="adam",
        learning_rate=2e-2,
        warmup_steps=2,
        schedule="cosine",
        horizon=16,
        final_share=0.1,
        weight_decay=0.1,
        clip_norm=0.3,
        eps_root=1e-4,
    ),
    "sgd with momentum": Optimizer(
        kind="sgd", learning_rate=0.1, warmup_steps=2, momentum=0.8, weight_decay=0.05, clip_norm=0.5
    ),
}


def trainer_of(
    model: Model = ARCHITECTURES["attention-only"],
    optimizer: Optimizer = OPTIMIZERS["adamw, clip and decay"],
    *,
    batch: int = 4,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    device: torch.device = CPU,
) -> Trainer:
    """A trainer on random tokens; float64 on the CPU unless told otherwise."""
    pool = torch.randint(0, VOCABULARY, (24, CONTEXT), generator=torch.Generator().manual_seed(seed))
    pool[::2, CONTEXT // 2 :] = pool[::2, : CONTEXT // 2]
    built = build_model(model, VOCABULARY, CONTEXT, seed).to(device, dtype)
    training = Training(steps=20, batch=batch, device="cpu" if device.type == "cpu" else "cuda")
    return Trainer(FlatModel(built), optimizer, training, pool, seed)


def prompt_probe(tokenizer: Tokenizer, context: int) -> Probe:
    """A probe for mechanisms that encode prompts of their own, and need no text."""
    sequences = Sequences(torch.zeros(2, context, dtype=torch.long), torch.full((2,), 20))
    origin = Origin(tokenizer.get_vocab_size(), 0, lambda: tokenizer, lambda: pytest.fail("no text is needed"))
    return Probe(sequences, sequences, origin)


def components(trainer: Trainer, *, neurons: bool = False) -> Components:
    """Components of a trainer's model."""
    model = trainer.flat.model
    if isinstance(model, NativeModel):
        return components_of(trainer.flat, model.cfg.n_heads, neurons=neurons)
    return components_of(
        trainer.flat,
        model.config.num_attention_heads,
        getattr(model.config, "num_key_value_heads", None),
        neurons=neurons,
    )


def mechanism_of(trainer: Trainer, probe: Probe, name: str) -> tuple[Callable, Callable]:
    """(gradient, value) of a mechanism as functions of θ."""
    value = MECHANISMS[name].value

    def gradient(theta: torch.Tensor) -> torch.Tensor:
        trainer.flat.load(theta)
        return trainer.flat.gradient(value(trainer.flat.model, probe))

    def scalar(theta: torch.Tensor) -> float:
        trainer.flat.load(theta)
        return float(value(trainer.flat.model, probe).detach())

    return gradient, scalar


def with_weights(trainer: Trainer, weights: torch.Tensor) -> Trainer:
    """The same training with other example weights."""
    return dataclasses.replace(trainer, weights=weights)


def gradients_of(trainer, probe, name="induction_copy_advantage"):
    """∇M at a state, one row."""

    def gradients(state):
        trainer.flat.load(state.theta)
        return trainer.flat.gradient(MECHANISMS[name].value(trainer.flat.model, probe))[None]

    return gradients


def in_micro_batches(trainer, count):
    training = trainer.training.model_copy(update={"micro_batches": count})
    return dataclasses.replace(trainer, training=training)
