"""The model that is trained: TransformerLens' native transformer as a plain PyTorch module.

`bridge` puts a TransformerBridge around the very same parameters, without folding, so that what is looked into is
what was trained.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.bridge import TransformerBridge
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformer_lens.model_bridge.sources.native import NativeModel, initialize_native_model

from mech_pipeline.spec.model import Model
from mech_pipeline.spec.seeds import derive_seed
from mech_pipeline.training.kernels import use_training_kernels

_ARCHITECTURE = "TransformerLensNative"
_NORMALIZATION = {"none": None, "layer_norm": "LN", "rms_norm": "RMS"}


def model_config(spec: Model, vocabulary: int, context: int) -> TransformerBridgeConfig:
    """TransformerLens' configuration for a model spec."""
    return TransformerBridgeConfig(
        architecture=_ARCHITECTURE,
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


def build_model(spec: Model, vocabulary: int, context: int, seed: int, *, for_bridge: bool = False) -> NativeModel:
    """A freshly initialised model; the caller's random state is untouched.

    Args:
        for_bridge: keep the stock attention, whose pattern a TransformerBridge can hook.
    """
    config = model_config(spec, vocabulary, context)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        model = NativeModel(config)
    if spec.init == "gpt2":
        initialize_native_model(model, config, seed=derive_seed(seed, "init"))
    if not for_bridge:
        use_training_kernels(model)
    return model


def bridge(model: NativeModel) -> TransformerBridge:
    """A TransformerBridge around the model's own parameters. It rewires the module: build it with `for_bridge`."""
    return build_bridge_from_module(model, architecture=_ARCHITECTURE, tl_config=model.cfg, model_name="native")


def next_token_losses(model: nn.Module, tokens: Int[Tensor, "example token"]) -> Float[Tensor, "example target"]:
    """−log p(token j | tokens before j) for j = 1 … T−1, in nats."""
    log_probabilities = torch.log_softmax(model(tokens[:, :-1]), dim=-1)
    return -log_probabilities.gather(-1, tokens[:, 1:, None])[..., 0]


def example_losses(model: nn.Module, tokens: Int[Tensor, "example token"]) -> Float[Tensor, " example"]:
    """ℓ_i: mean next-token loss of each example, in nats."""
    return next_token_losses(model, tokens).mean(dim=1)
