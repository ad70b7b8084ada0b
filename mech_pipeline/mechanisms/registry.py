"""Every mechanism and detector by name. Add one: write a function, add a line, and it works in YAML everywhere.

Raise `version` when the numbers change: exactly that mechanism or detector is then recomputed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_bridge.bridge import TransformerBridge

from mech_pipeline.mechanisms import heads, induction
from mech_pipeline.mechanisms.probe import Probe


@dataclass(frozen=True)
class Mechanism:
    """A named differentiable number of the parameters; higher always means more formed."""

    value: Callable[[nn.Module, Probe], Float[Tensor, ""]]
    unit: str
    meaning: str
    version: str = "1"


@dataclass(frozen=True)
class Detector:
    """A score per attention head, [layer, head]."""

    score: Callable[[TransformerBridge, list[Tensor], Probe], Float[Tensor, "layer head"]]
    unit: str
    meaning: str
    version: str = "1"


MECHANISMS: dict[str, Mechanism] = {
    "induction_copy_advantage": Mechanism(
        induction.induction_copy_advantage, "nats", "loss on the first copy minus loss on the repetition, held-out text"
    ),
    "induction_copy_advantage_random": Mechanism(
        induction.induction_copy_advantage_random,
        "nats",
        "loss on the first copy minus loss on the repetition, random tokens",
    ),
    "previous_token_attention": Mechanism(
        induction.previous_token_attention, "attention probability", "attention to the previous token, best head"
    ),
}

DETECTORS: dict[str, Detector] = {
    "previous_token": Detector(heads.previous_token, "attention probability", "mean attention from i to i − 1"),
    "duplicate_token": Detector(heads.duplicate_token, "attention probability", "mean attention to earlier copies"),
    "prefix_matching": Detector(
        heads.prefix_matching, "attention probability", "mean attention to what followed earlier copies (induction)"
    ),
    "copying": Detector(heads.copying, "share in [−1, 1]", "OV circuit raises the attended token's logit"),
}
