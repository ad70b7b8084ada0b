"""A checkpoint that is loaded once, and what several measurements of it share."""

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.training.update.optimizer import Vector


@dataclass
class Loaded:
    """A checkpoint, its weights in the run's model."""

    run: OpenRun
    step: int
    theta: Vector = field(init=False)

    def __post_init__(self) -> None:
        self.theta = self.run.weights(self.step)
        self.run.trainer.flat.load(self.theta)

    @cached_property
    def patterns(self) -> list[Tensor]:
        """Attention patterns of every layer on the random probe, through TransformerBridge."""
        flat, wrapped = self.run.bridged
        flat.load(self.theta)
        names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(self.run.spec.model.layers)]
        with torch.no_grad():
            _, cache = wrapped.run_with_cache(self.run.tokens.probe.random.tokens, names_filter=names)
        return [cache[name] for name in names]
