"""The model that is trained, as a plain PyTorch module from token ids to logits.

Toy models are TransformerLens' native transformer (`native.py`); GPT-2, GPT-NeoX and Llama come from `transformers`
(`architectures.py`). `bridge` (`bridging.py`) puts a TransformerBridge around the very same parameters. Both libraries take
seconds to import, so they are imported by whoever builds a model.
"""

import threading

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mech_pipeline.errors import MechError
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.seeds import derive_seed

_drawing = threading.Lock()
"""Initial weights come from the process's one random state; the runs of a stack are built in threads."""


def attention_kinds() -> tuple[type[nn.Module], ...]:
    """Every kind of attention module here; the second result of each is its pattern."""
    from transformer_lens.model_bridge.sources.native import NativeAttention

    from mech_pipeline.training.architectures import TRANSFORMERS_ATTENTION

    return (NativeAttention, *TRANSFORMERS_ATTENTION)


def build_model(spec: Model, vocabulary: int, context: int, seed: int, *, for_bridge: bool = False) -> nn.Module:
    """A freshly initialised model; the caller's random state is untouched.

    Args:
        vocabulary: of the tokenizer; the model has `spec.vocabulary` rows if that is set.
        for_bridge: keep the stock modules, which a TransformerBridge can hook.

    Raises:
        MechError: the tokenizer has more tokens than the model has rows, or `init_from` does not fit.
    """
    from mech_pipeline.training.architectures import build_transformers_model
    from mech_pipeline.training.kernels import use_training_kernels
    from mech_pipeline.training.native import build_native_model

    rows = vocabulary if spec.vocabulary is None else spec.vocabulary
    if rows < vocabulary:
        raise MechError(
            f"vocabulary mismatch: the tokenizer has {vocabulary} tokens, model.vocabulary is {rows}",
            "raise model.vocabulary, or leave it out",
        )
    with _drawing, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "init"))
        if spec.family == "native":
            model: nn.Module = build_native_model(spec, rows, context, seed)
        else:
            model = build_transformers_model(spec, rows, context, for_bridge=for_bridge)
    if not for_bridge:
        use_training_kernels(model)
    return model


def parameter_count(spec: Model, vocabulary: int, context: int) -> int:
    """Number of parameters, without allocating them."""
    from mech_pipeline.training.architectures import build_transformers_model

    with torch.device("meta"):
        if spec.init_from is None:
            model = build_model(spec.model_copy(update={"init": "pytorch"}), vocabulary, context, 0)
        else:
            rows = vocabulary if spec.vocabulary is None else spec.vocabulary
            model = build_transformers_model(spec, rows, context, for_bridge=False, weights=False)
    return sum(parameter.numel() for parameter in model.parameters())


def next_token_losses(model: nn.Module, tokens: Int[Tensor, "example token"]) -> Float[Tensor, "example target"]:
    """−log p(token j | tokens before j) for j = 1 … T−1, in nats."""
    log_probabilities = torch.log_softmax(model(tokens[:, :-1]), dim=-1)
    return -log_probabilities.gather(-1, tokens[:, 1:, None])[..., 0]


def example_losses(model: nn.Module, tokens: Int[Tensor, "example token"]) -> Float[Tensor, " example"]:
    """ℓ_i: mean next-token loss of each example, in nats."""
    return next_token_losses(model, tokens).mean(dim=1)
