"""GPT-2, GPT-NeoX and Llama from `transformers` configurations, trained as plain modules from tokens to logits.

OLMo-2 and nanochat are read from suites alone.

Parameter names are those of `transformers`, so `model.*` of a checkpoint loads there. Weights are drawn by the
architecture's own initialisation, or read from a checkpoint in safetensors (never pickle).
"""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    NanoChatForCausalLM,
    Olmo2ForCausalLM,
    PretrainedConfig,
)
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXAttention
from transformers.models.llama.modeling_llama import LlamaAttention
from transformers.models.nanochat.modeling_nanochat import NanoChatAttention
from transformers.models.olmo2.modeling_olmo2 import Olmo2Attention
from transformers.utils import logging

from mech_pipeline.errors import MechError
from mech_pipeline.spec.initial import checkpoint_folder, initial_sha256
from mech_pipeline.spec.model import Model
from mech_pipeline.training.kernels import MATH_ATTENTION, use_training_kernels
from mech_pipeline.training.source_config import read_config, source_config

CLASSES = {
    "gpt2": GPT2LMHeadModel,
    "gpt_neox": GPTNeoXForCausalLM,
    "llama": LlamaForCausalLM,
    "olmo2": Olmo2ForCausalLM,
    "nanochat": NanoChatForCausalLM,
}
_COMPARED, _ROUNDING = 64, 1e-4
"""Tokens on which a loaded model is compared with its source; largest difference of logits, for logits of about 1."""
TRANSFORMERS_ATTENTION = (GPT2Attention, GPTNeoXAttention, LlamaAttention, Olmo2Attention, NanoChatAttention)


class TokensToLogits:
    """Mixed into a model of `transformers`: called with token ids, it gives logits.

    Positions are given per example, so that a positional embedding has a gradient per example as well.
    """

    def forward(self, tokens: Int[Tensor, "example token"]) -> Float[Tensor, "example place vocabulary"]:
        """Logits of the next token at every position, or where a hook on the unembedding keeps some."""
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens)
        return super().forward(input_ids=tokens, position_ids=positions, use_cache=False).logits  # type: ignore[misc]


_TRAINED: dict[str, Any] = {name: type(base.__name__, (TokensToLogits, base), {}) for name, base in CLASSES.items()}


def transformers_config(spec: Model, vocabulary: int, context: int, attention: str) -> PretrainedConfig:
    """`transformers`' configuration for a model spec."""
    shared: dict[str, Any] = {"vocab_size": vocabulary, "use_cache": False, "attn_implementation": attention}
    shared |= {"bos_token_id": None, "eos_token_id": None}
    if spec.family == "gpt2":
        return GPT2Config(
            n_positions=context,
            n_embd=spec.d_model,
            n_layer=spec.layers,
            n_head=spec.heads,
            n_inner=spec.mlp_width,
            activation_function=spec.activation,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **shared,
        )
    shared |= {
        "max_position_embeddings": context,
        "hidden_size": spec.d_model,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "intermediate_size": spec.mlp_width,
        "hidden_act": spec.activation,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
    }
    if spec.family == "gpt_neox":
        rotary = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": spec.rotary_share}
        return GPTNeoXConfig(hidden_dropout=0.0, rope_parameters=rotary, **shared)
    return LlamaConfig(num_key_value_heads=spec.key_value_heads, head_dim=spec.head_width, **shared)


def configuration(spec: Model, vocabulary: int, context: int, attention: str) -> PretrainedConfig:
    """The configuration of the spec, or of the checkpoint that it starts from, which must say the same."""
    if spec.config is not None:
        return source_config(json.loads(spec.config), "of the suite", spec, vocabulary, context, attention)
    if spec.init_from is None:
        return transformers_config(spec, vocabulary, context, attention)
    written = read_config(checkpoint_folder(spec.init_from, spec.home) / "config.json", spec.init_from)
    return source_config(written, spec.init_from, spec, vocabulary, context, attention)


def build_transformers_model(
    spec: Model, vocabulary: int, context: int, *, for_bridge: bool, weights: bool = True
) -> nn.Module:
    """The model, freshly initialised from PyTorch's current random state or from `init_from`.

    Args:
        weights: read those of `init_from`; otherwise the model has its shape alone.

    Raises:
        MechError: the checkpoint does not fit the spec, or is not the one that the experiment was read with.
    """
    config = configuration(spec, vocabulary, context, "eager" if for_bridge else MATH_ATTENTION)
    kind: Any = (CLASSES if for_bridge else _TRAINED)[spec.family]
    if spec.init_from is None or not weights:
        return kind(config)
    if initial_sha256(spec.init_from, spec.home) != spec.init_sha256:
        raise MechError(
            f"checkpoint {spec.init_from} is not what it was when the run was described "
            f"(SHA-256 {str(spec.init_sha256)[:12]}…)",
            "`mech run` the experiment again: a run that starts from other weights is another run",
        )
    return _loaded(kind, config, spec, checkpoint_folder(spec.init_from, spec.home), spec.init_from)


def checkpoint_weights(spec: Model, folder: Path, source: str, context: int, *, compare: bool) -> dict[str, Tensor]:
    """The weights of a folder with config.json and safetensors, by the names that the trained model has, in fp32.

    Args:
        source: how to name it in an error.
        compare: whether the model computes here what it computes in `transformers`.

    Raises:
        MechError: they cannot be read, do not fit the spec, or would be another model here.
    """
    assert spec.vocabulary is not None, "a suite's model says how many rows it has"
    config = configuration(spec, spec.vocabulary, context, MATH_ATTENTION)
    kind = _TRAINED[spec.family] if compare else CLASSES[spec.family]
    model = _loaded(kind, config, spec, folder, source)
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _loaded(kind: Any, config: PretrainedConfig, spec: Model, folder: Path, source: str) -> nn.Module:
    """The weights of a checkpoint, read by `transformers`' own class, and then used as ours."""
    stock: Any = CLASSES[spec.family]  # renames what older files call otherwise, which a derived class does not
    try:
        with _quiet():
            model, found = stock.from_pretrained(
                folder,
                config=copy.deepcopy(config),
                attn_implementation="eager",
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # cut, damaged and missing files raise whatever their reader raises
        raise MechError(
            f"weights of checkpoint {source} cannot be read: {' '.join(str(error).split())[:300]}",
            "save or download it again",
        ) from error
    _check_weights(model, found, source)
    if kind is stock:
        return model
    return _as_trained(model, kind, config, source)


def _check_weights(model: nn.Module, found: dict[str, Any], source: str) -> None:
    wrong = [f"{name} is missing" for name in found["missing_keys"]]
    wrong += [f"{name} is {list(has)}, expected {list(want)}" for name, has, want in found["mismatched_keys"]]
    wrong += [
        f"{name} is more than the model has"
        for name in found["unexpected_keys"]
        if not name.endswith("rotary_emb.inv_freq")  # older files keep it; it follows from the configuration
    ]
    wrong += [f"{name} is not finite" for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise MechError(
            f"checkpoint {source} does not fit the model: {sorted(wrong)[0]}{more}",
            "save it again with `save_pretrained(folder)`: its weights are not those that its config.json describes",
        )


def _as_trained(model: Any, kind: Any, config: PretrainedConfig, source: str) -> nn.Module:
    """The same model with our attention and norms, if it then computes what `transformers` computes."""
    length = min(_COMPARED, config.max_position_embeddings)
    tokens = (torch.arange(length) * 7 % config.vocab_size)[None]
    with torch.no_grad():
        try:
            theirs = model.eval()(tokens).logits
        except Exception as error:  # a number in the configuration with which nobody can compute
            raise MechError(
                f"transformers cannot compute with checkpoint {source}: {' '.join(str(error).split())[:200]}",
                "mend its config.json, or save it again with `save_pretrained(folder)`",
            ) from error
        model.set_attn_implementation(config._attn_implementation)
        model.__class__ = kind
        use_training_kernels(model)
        difference = float((model(tokens) - theirs).abs().max())
    if not difference <= _ROUNDING * max(1.0, float(theirs.abs().max())):
        raise MechError(
            f"checkpoint {source} would be another model here: logits differ by {difference:.1g} from transformers' own",
            "name another checkpoint, and report its config.json: something in it is not followed",
        )
    return model.train()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own table of what did not fit: it is said in one sentence."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()
