"""Which model is trained: the native toy family, or GPT-2, GPT-NeoX (Pythia) or Llama as `transformers` builds them.

A preset is a name for fields; other keys beside it override it. It is expanded before anything is checked, so a preset
and the same fields written out are the same run.
"""

from typing import Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from mech_pipeline.errors import did_you_mean
from mech_pipeline.spec.stage import NamesFiles, added

PRESETS: dict[str, dict[str, Any]] = {
    # The toy models that TransformerLens distributes under these names.
    "attn-only-2l": {"layers": 2, "heads": 8, "d_model": 512, "normalization": "layer_norm", "init": "gpt2"},
    "gelu-4l": {
        "layers": 4,
        "heads": 8,
        "d_model": 512,
        "d_mlp": 2048,
        "activation": "gelu",
        "normalization": "layer_norm",
        "init": "gpt2",
    },
    # Biderman et al. 2023, table 1, and the configurations of the published checkpoints.
    "pythia-14m": {"family": "gpt_neox", "layers": 6, "heads": 4, "d_model": 128, "d_mlp": 512},
    "pythia-70m": {"family": "gpt_neox", "layers": 6, "heads": 8, "d_model": 512, "d_mlp": 2048},
    # Radford et al. 2019.
    "gpt2-small": {"family": "gpt2", "layers": 12, "heads": 12, "d_model": 768, "d_mlp": 3072},
}

_FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {"normalization": "layer_norm", "positions": "learned", "activation": "gelu_new", "init": "gpt2"},
    "gpt_neox": {"normalization": "layer_norm", "positions": "rotary", "activation": "gelu", "init": "gpt2"},
    "llama": {"normalization": "rms_norm", "positions": "rotary", "activation": "silu", "init": "gpt2"},
    "olmo2": {"normalization": "rms_norm", "positions": "rotary", "activation": "silu", "init": "gpt2"},
    "nanochat": {"normalization": "rms_norm", "positions": "rotary", "activation": "relu2", "init": "gpt2"},
}
"""What an architecture is, as defaults for fields that are not named."""

_FIXED = ("normalization", "positions", "init")
_FROM_OUTSIDE = ("olmo2", "nanochat")
"""Architectures that suites bring, and that are not trained here."""
_SHARED_KEYS = ("llama", *_FROM_OUTSIDE)


class Model(NamesFiles):
    """The architecture and its size. The context comes from `data.context`, the vocabulary from the tokenizer."""

    family: Literal["native", "gpt2", "gpt_neox", "llama", "olmo2", "nanochat"] = added(
        "native",
        "native: TransformerLens' toy transformer; others: the architectures of `transformers`; olmo2 and nanochat are "
        "not trained here, only suites bring them",
    )
    layers: int = Field(2, ge=1, le=48)
    heads: int = Field(4, ge=1, le=1024, description="attention heads per layer")
    kv_heads: int | None = added(None, "key-value heads of llama, shared by groups of heads; default: as many", ge=1)
    d_model: int = Field(64, ge=2, le=65_536, description="width of the residual stream")
    d_head: int | None = Field(None, ge=1, le=65_536, description="width of a head; default d_model / heads")
    d_mlp: int | None = Field(
        None, ge=1, le=1_048_576, description="neurons per layer; none makes the native model attention-only"
    )
    activation: Literal["gelu", "gelu_new", "relu", "silu", "solu", "relu2"] = Field(
        "gelu", description="of the MLP; relu2 is nanochat's"
    )
    normalization: Literal["none", "layer_norm", "rms_norm"] = "none"
    positions: Literal["learned", "rotary"] = "learned"
    rotary_share: float = added(0.25, "share of each head that gpt_neox rotates", gt=0, le=1)
    init: Literal["pytorch", "gpt2"] = Field("pytorch", description="GPT-2's small init does not form induction here")
    vocabulary: int | None = added(
        None, "rows of the embedding; default: the tokenizer's vocabulary", ge=2, le=10_000_000
    )
    init_from: str | None = added(
        None, "start from a checkpoint of `transformers`: a folder with config.json and safetensors, or a hub name"
    )
    config: str | None = added(None, "config.json of a suite; filled in when the experiment is resolved")
    init_sha256: str | None = added(None, "content of `init_from`; filled in when the experiment is resolved")

    @model_validator(mode="wrap")
    @classmethod
    def _expanded(cls, content: Any, make: ModelWrapValidatorHandler["Model"]) -> "Model":
        """With preset and family spelt out; what the family gives counts as its default, and not as written."""
        if not isinstance(content, dict):
            return make(content)
        named = dict(content)
        preset = named.pop("preset", None)
        if preset is not None and preset not in PRESETS:
            raise ValueError(
                f"unknown preset {preset!r}; {did_you_mean(str(preset), PRESETS)}there are {', '.join(PRESETS)}"
            )
        named = PRESETS.get(preset or "", {}) | named
        made = make(_FAMILIES.get(str(named.get("family")), {}) | named)
        made.model_fields_set.intersection_update(named)
        return made

    def changed(self, changes: dict[str, Any]) -> dict[str, Any]:
        """What was written here with an arm's changes; of another family, nothing that belongs to this one alone.

        >>> Model(layers=1, normalization="layer_norm").changed({"family": "llama"})
        {'layers': 1, 'family': 'llama'}
        """
        written = self.model_dump(exclude_unset=True)
        if changes.get("family", self.family) != self.family:
            written = {name: value for name, value in written.items() if name not in _FIXED}
        return written | changes

    @model_validator(mode="after")
    def _divisible(self) -> "Model":
        if self.d_head is None and self.d_model % self.heads:
            raise ValueError(
                f"d_model ({self.d_model}) is not a multiple of heads ({self.heads}); set d_head or change one"
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need an even head width, got {self.head_width}")
        if self.heads % self.key_value_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} kv_heads evenly")
        return self

    @model_validator(mode="after")
    def _of_its_family(self) -> "Model":
        if self.family == "native":
            for field in ("kv_heads", "init_from", "config"):
                if getattr(self, field) is not None:
                    raise ValueError(f"{field} belongs to the families gpt2, gpt_neox and llama; family is native")
            if self.activation == "relu2":
                raise ValueError("activation relu2 belongs to family nanochat; family is native")
            return self
        if self.family in _FROM_OUTSIDE and self.config is None:
            raise ValueError(
                f"family {self.family} is not trained here: name a suite with `imported`, and leave `model` out"
            )
        for field in _FIXED:
            if getattr(self, field) != _FAMILIES[self.family][field]:
                raise ValueError(
                    f"family {self.family} has {field}: {_FAMILIES[self.family][field]}, got {getattr(self, field)}"
                )
        if self.activation == "solu":
            raise ValueError(f"family {self.family} has no solu; use family: native")
        if self.activation == "relu2" and self.family != "nanochat":
            raise ValueError(f"activation relu2 belongs to family nanochat; family is {self.family}")
        if self.kv_heads is not None and self.family not in _SHARED_KEYS:
            raise ValueError(f"kv_heads belongs to family llama; family is {self.family}")
        if self.family != "llama" and self.head_width * self.heads != self.d_model:
            raise ValueError(f"family {self.family} has d_head = d_model / heads, got {self.d_head}")
        if self.family == "gpt_neox" and (self.rotated_width < 2 or self.rotated_width % 2):
            raise ValueError(
                f"rotary_share ({self.rotary_share}) of a head of {self.head_width} is {self.rotated_width} dimensions, "
                "which must be even"
            )
        return self

    @property
    def head_width(self) -> int:
        """Width of one head, with the default filled in."""
        return self.d_head or self.d_model // self.heads

    @property
    def key_value_heads(self) -> int:
        """Heads that have keys and values of their own."""
        return self.kv_heads or self.heads

    @property
    def rotated_width(self) -> int:
        """Dimensions of a head that rotary positions turn."""
        return int(self.head_width * self.rotary_share) if self.family == "gpt_neox" else self.head_width

    @property
    def mlp_width(self) -> int:
        """Neurons per layer of the architectures that always have an MLP, with their usual default filled in."""
        usual = 8 * self.d_model // 3 if self.family == "llama" else 4 * self.d_model
        return self.d_mlp or usual
