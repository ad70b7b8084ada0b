"""How much one head reads of what an earlier head writes, from the weights alone (Elhage et al. 2021).

With W_QK = W_Qᵀ W_K and W_OV = W_O W_V, both [d_model, d_model], of a sender s and a receiver r in a later layer:

    Q: ‖(W_QK^r)ᵀ W_OV^s‖ / (‖W_QK^r‖ ‖W_OV^s‖)
    K: ‖W_QK^r W_OV^s‖ / (‖W_QK^r‖ ‖W_OV^s‖)
    V: ‖W_OV^r W_OV^s‖ / (‖W_OV^r‖ ‖W_OV^s‖)          Frobenius norms

0: nothing that the sender writes is read there. 1: a sender and a receiver of rank one that meet; a receiver that reads n
dimensions alike reaches at most 1/√n.
Two random heads give about 1/√d_model, so a score is read against that. Norms, biases and rotary positions are left out.
Cost: products of d_head × d_head matrices; no data, no forward.
"""

from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.anatomy import HeadWeights, head_weights
from mech_pipeline.mechanisms.readouts.readout import Readout
from mech_pipeline.mechanisms.requirements import all_of, needs_head


def composition(kind: Literal["Q", "K", "V"], sender: tuple[int, int], receiver: tuple[int, int]) -> Readout[None]:
    """Composition score of two heads, each a (layer, head), in [0, 1].

    Raises:
        MechError: the receiver is in no later layer than the sender, so it cannot read it.
    """
    if kind not in ("Q", "K", "V"):
        raise MechError(f"composition is Q, K or V, got {kind!r}", "name one of them")
    if sender[0] >= receiver[0]:
        raise MechError(
            f"head {receiver[1]} of layer {receiver[0]} cannot read head {sender[1]} of layer {sender[0]}",
            "name a sender in an earlier layer",
        )

    def compute(model: nn.Module, data: None) -> Float[Tensor, ""]:
        source, target = head_weights(model, *sender), head_weights(model, *receiver)
        left, right = _circuit(kind, target)
        outer, inner = left.T @ left, source.value @ source.value.T
        met = right @ source.output  # [d_head, d_head]: what the receiver reads of what the sender writes
        both = _product_norm(outer, met @ inner @ met.T)
        return both / (_product_norm(outer, right @ right.T) * _product_norm(source.output.T @ source.output, inner))

    return Readout(compute, all_of(needs_head(*sender), needs_head(*receiver)))


def _circuit(kind: str, head: HeadWeights) -> tuple[Float[Tensor, "d_model d_head"], Float[Tensor, "d_head d_model"]]:
    """The matrix by which the receiver reads, as a product L R."""
    if kind == "Q":
        return head.key.T, head.query
    if kind == "K":
        return head.query.T, head.key
    return head.output, head.value


def _product_norm(left: Float[Tensor, "d_head d_head"], right: Float[Tensor, "d_head d_head"]) -> Float[Tensor, ""]:
    """‖L R‖ from LᵀL and R Rᵀ: its square is the trace of their product."""
    return (left * right).sum().sqrt()
