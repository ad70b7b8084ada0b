"""Which model is trained."""

from typing import Literal

from pydantic import Field, model_validator

from mech_pipeline.spec.stage import Stage


class Model(Stage):
    """TransformerLens' native transformer (`NativeModel`)."""

    layers: int = Field(2, ge=1, le=48)
    heads: int = Field(4, ge=1, description="attention heads per layer")
    d_model: int = Field(64, ge=2, description="width of the residual stream")
    d_head: int | None = Field(None, ge=1, description="width of a head; default d_model / heads")
    d_mlp: int | None = Field(None, ge=1, description="neurons per layer; none makes the model attention-only")
    activation: Literal["gelu", "gelu_new", "relu", "silu", "solu"] = Field("gelu", description="of the MLP")
    normalization: Literal["none", "layer_norm", "rms_norm"] = "none"
    positions: Literal["learned", "rotary"] = "learned"
    init: Literal["pytorch", "gpt2"] = Field("pytorch", description="GPT-2's small init does not form induction here")

    @model_validator(mode="after")
    def _divisible(self) -> "Model":
        if self.d_head is None and self.d_model % self.heads:
            raise ValueError(
                f"d_model ({self.d_model}) is not a multiple of heads ({self.heads}); set d_head or change one"
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need an even head width, got {self.head_width}")
        return self

    @property
    def head_width(self) -> int:
        """Width of one head, with the default filled in."""
        return self.d_head or self.d_model // self.heads
