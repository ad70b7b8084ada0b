"""The model that is trained, as a plain PyTorch module from token ids to logits.

Toy models are TransformerLens' native transformer; GPT-2, GPT-NeoX and Llama come from `transformers`
(`architectures.py`). `bridge` (`bridging.py`) puts a TransformerBridge around the very same parameters.
"""

import threading

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native import NativeAttention, NativeModel, initialize_native_model

from mech_pipeline.errors import MechError
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.seeds import derive_seed
from mech_pipeline.training.architectures import TRANSFORMERS_ATTENTION, build_transformers_model
from mech_pipeline.training.kernels import use_training_kernels

NATIVE = "TransformerLensNative"
_drawing = threading.Lock()
"""Initial weights come from the process's one random state; the runs of a stack are built in threads."""
ATTENTION = (NativeAttention, *TRANSFORMERS_ATTENTION)
"""Every kind of attention module here; the second result of each is its pattern."""
_NORMALIZATION = {"none": None, "layer_norm": "LN", "rms_norm": "RMS"}


def model_config(spec: Model, vocabulary: int, context: int) -> TransformerBridgeConfig:
    """TransformerLens' configuration for a native model spec."""
    return TransformerBridgeConfig(
        architecture=NATIVE,
        n_layers=spec.layers,
        n_heads=spec.heads,
        d_model=spec.d_model,
        d_head=spec.head_width,
        d_mlp=spec.d_mlp,
        attn_only=spec.d_mlp is None,
        act_fn=spec.activation,
        n_ctx=context,
        d_vocab=vocabulary,
        normalization_type=_NORMALIZATION[spec.normalization],
        positional_embedding_type="standard" if spec.positions == "learned" else "rotary",
    )


def build_model(spec: Model, vocabulary: int, context: int, seed: int, *, for_bridge: bool = False) -> nn.Module:
    """A freshly initialised model; the caller's random state is untouched.

    Args:
        vocabulary: of the tokenizer; the model has `spec.vocabulary` rows if that is set.
        for_bridge: keep the stock modules, which a TransformerBridge can hook.

    Raises:
        MechError: the tokenizer has more tokens than the model has rows, or `init_from` does not fit.
    """
    rows = vocabulary if spec.vocabulary is None else spec.vocabulary
    if rows < vocabulary:
        raise MechError(
            f"vocabulary mismatch: the tokenizer has {vocabulary} tokens, model.vocabulary is {rows}",
            "raise model.vocabulary, or leave it out",
        )
    with _drawing, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        if spec.family == "native":
            model: nn.Module = _native(spec, rows, context, seed)
        else:
            model = build_transformers_model(spec, rows, context, for_bridge=for_bridge)
    if not for_bridge:
        use_training_kernels(model)
    return model


def _native(spec: Model, vocabulary: int, context: int, seed: int) -> NativeModel:
    config = model_config(spec, vocabulary, context)
    model = NativeModel(config)
    if spec.init == "gpt2":
        initialize_native_model(model, config, seed=derive_seed(seed, "init"))
    return model


def parameter_count(spec: Model, vocabulary: int, context: int) -> int:
    """Number of parameters, without allocating them."""
    with torch.device("meta"):
        model = build_model(spec.model_copy(update={"init_from": None, "init": "pytorch"}), vocabulary, context, 0)
    return sum(parameter.numel() for parameter in model.parameters())


def next_token_losses(model: nn.Module, tokens: Int[Tensor, "example token"]) -> Float[Tensor, "example target"]:
    """−log p(token j | tokens before j) for j = 1 … T−1, in nats."""
    log_probabilities = torch.log_softmax(model(tokens[:, :-1]), dim=-1)
    return -log_probabilities.gather(-1, tokens[:, 1:, None])[..., 0]


def example_losses(model: nn.Module, tokens: Int[Tensor, "example token"]) -> Float[Tensor, " example"]:
    """ℓ_i: mean next-token loss of each example, in nats."""
    return next_token_losses(model, tokens).mean(dim=1)
