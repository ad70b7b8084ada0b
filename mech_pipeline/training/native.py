"""Toy models: TransformerLens' native transformer, made from a spec."""

from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native import NativeModel, initialize_native_model

from mech_pipeline.spec.model import Model
from mech_pipeline.spec.seeds import derive_seed

NATIVE = "TransformerLensNative"
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


def build_native_model(spec: Model, vocabulary: int, context: int, seed: int) -> NativeModel:
    """A native model with initial weights from the process's random state, or GPT-2's from the seed."""
    config = model_config(spec, vocabulary, context)
    model = NativeModel(config)
    if spec.init == "gpt2":
        initialize_native_model(model, config, seed=derive_seed(seed, "init"))
    return model
