"""How much each head could read of each earlier head, from the weights alone, against a null (Elhage et al. 2021).

With W_QK = W_Qᵀ W_K and W_OV = W_O W_V, both [d_model, d_model], of a sender s and a receiver r in a later layer:

    Q: ‖(W_QK^r)ᵀ W_OV^s‖ / (‖W_QK^r‖ ‖W_OV^s‖)       K: W_QK^r in place of (W_QK^r)ᵀ       V: W_OV^r       Frobenius norms

as in `readouts/composition.py`, here for all pairs at once. The null is the same score with the sender's output turned by
a random orthogonal R, ‖W_QK^r R W_OV^s‖ / …: reading and writing are as strong as they are, and meet by chance. Its mean
square is 1/d_model exactly, whatever the heads; how far it spreads depends on their ranks.

What a score leaves out: norms (also their learnt scales), biases, rotary positions (a rotated head has another W_QK for
each distance), MLPs between, and whether what is written is what is needed. A high score is a path that could be used;
for what is lost without it see `path_patching.py`. Heads that share keys or values are each scored with the shared weights.
Cost: for each of DRAWS rotations one product [heads · d_head, d_model] × [d_model, heads · d_head]. No data.
Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", two-layer models, composition scores.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.training.bridge_type import TransformerBridge
from mech_pipeline.training.seeds import torch_generator

Kind = Literal["Q", "K", "V"]
Pairs = Float[Tensor, "sender_layer sender layer head"]
Reads = Float[Tensor, "layer head d_head d_model"]
Writes = Float[Tensor, "layer head d_model d_head"]
DRAWS = 16


@dataclass(frozen=True)
class Scores:
    """Composition scores of all pairs of heads, in [0, 1]; 0 where the sender is in no earlier layer.

    Attributes:
        score: of the weights.
        null_mean: mean over random rotations of what the senders write.
        null_sd: standard deviation over them; the mean's own error is null_sd / √DRAWS.
    """

    score: Pairs
    null_mean: Pairs
    null_sd: Pairs


def composition_scores(bridge: TransformerBridge, kind: Kind, draws: int = DRAWS) -> Scores:
    """Raw scores and their null, in float64."""
    reads, writes = _factors(bridge, kind)
    generator = torch_generator(0, "composition null")
    turned = [_scores(reads, random_rotation(reads.shape[-1], generator).to(writes) @ writes) for _ in range(draws)]
    null = torch.stack(turned)
    return Scores(_scores(reads, writes), null.mean(0), null.std(0))


def random_rotation(size: int, generator: torch.Generator) -> Float[Tensor, "size size"]:
    """A random orthogonal matrix, uniform (Haar): Q of a Gaussian matrix, R's diagonal made positive (Mezzadri 2007)."""
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def excess(scores: Scores) -> Float[Tensor, "layer head"]:
    """For each receiver, the largest score beyond the null's mean among heads of earlier layers; 0 in the first layer."""
    beyond = scores.score - scores.null_mean
    found = torch.zeros(beyond.shape[2:], dtype=beyond.dtype, device=beyond.device)
    for layer in range(1, len(found)):
        found[layer] = beyond[:layer, :, layer].amax((0, 1))
    return found


def k_composition(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """How well a head's keys read what one earlier head writes, beyond chance."""
    return excess(composition_scores(bridge, "K"))


def q_composition(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """How well a head's queries read what one earlier head writes, beyond chance."""
    return excess(composition_scores(bridge, "Q"))


def v_composition(bridge: TransformerBridge, patterns: list[Tensor], probe: Probe) -> Float[Tensor, "layer head"]:
    """How well a head's values read what one earlier head writes, beyond chance."""
    return excess(composition_scores(bridge, "V"))


def _factors(bridge: TransformerBridge, kind: Kind) -> tuple[Reads, Writes]:
    """Matrices of unit norm with ‖reads^r writes^s‖ = score, a side of d_head each."""
    output = bridge.W_O.detach().double()  # [layer, head, d_head, d_model]
    query, key, value = (
        weight.detach().double().repeat_interleave(output.shape[1] // weight.shape[1], dim=1)
        for weight in (bridge.W_Q, bridge.W_K, bridge.W_V)  # [layer, head, d_model, d_head]
    )
    outer, inner = {"Q": (key, query), "K": (query, key), "V": (output.mT, value)}[kind]
    return _unit(_triangle(outer) @ inner.mT), _unit(output.mT @ _triangle(value).mT)


def _triangle(tall: Writes) -> Float[Tensor, "layer head d_head d_head"]:
    """R of A = Q R, so that ‖A X‖ = ‖R X‖."""
    if tall.shape[-2] < tall.shape[-1]:  # heads wider than the residual stream
        return tall
    return torch.linalg.qr(tall, mode="r").R


def _unit(matrix: Tensor) -> Tensor:
    """Of norm 1; a head that reads or writes nothing stays 0."""
    return matrix / matrix.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-300)


def _scores(reads: Reads, writes: Writes) -> Pairs:
    found = torch.zeros(*writes.shape[:2], *reads.shape[:2], dtype=reads.dtype, device=reads.device)
    for layer in range(1, len(reads)):
        met = torch.einsum("rad,ksdb->ksrab", reads[layer], writes[:layer])
        found[:layer, :, layer] = met.norm(dim=(-2, -1))
    return found
