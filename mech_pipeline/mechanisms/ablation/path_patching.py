"""What later heads get from earlier heads through their keys, queries or values: the direct paths, patched.

    effect = m(model) − m(model whose keys are made of x̃),    m: any number that logits give

x̃_l is the residual stream x_l before layer l, with the outputs a_j of the attention layers before it replaced by their
means over all sequences and positions of the probe (mean ablation):

    x̃_l = x_l − Σ_{j<l} (a_j − ā_j),      key = W_K norm_l(x̃_l) + b_K      (likewise query, value), all heads, all l ≥ 1

x, a and ā are those of the normal run. Then the model runs with these keys: its queries, values, MLPs and residual stream
are its own, downstream of the changed attention. Only the direct paths are cut: what a head gives to an MLP, and the MLP
to a key, stays. The bias of O is in the mean and stays. A norm is applied to x̃ with the scale of x̃, as for any input that
is patched; rotary positions come after, as usual.
The means take away what differs between positions and sequences, and keep the constant that later weights are used to
(zeros would be a place where the model never is). The means are over a finite probe, so a little of each output is in them.

0: nothing comes that way. The whole of m: everything does. Effects of K, Q and V need not sum to anything: paths work together.
Cost: two forwards. Gradients of any order go through both runs and the means.
Source: Wang et al. 2022, §3.1 and appendix B (path patching, receivers' keys, queries or values); Goldowsky-Dill et al. 2023;
Elhage et al. 2021 (Q-, K-, V-composition).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.anatomy import attention, attention_norm, input_projection, layer_count
from mech_pipeline.mechanisms.readouts.readout import Readout
from mech_pipeline.mechanisms.requirements import needs_layers

Data = TypeVar("Data")
Kind = Literal["Q", "K", "V"]
Stream = Float[Tensor, "example token d_model"]


def composition_effect(kind: Kind, measure: Callable[[nn.Module, Data], Float[Tensor, ""]]) -> Readout[Data]:
    """How much of a measure is lost when keys, queries or values of all heads are made without earlier heads.

    Args:
        measure: calls the model once; the effect has its unit.

    Raises:
        MechError: the kind is not one of Q, K and V, or the measure calls the model more than once.
    """
    if kind not in ("Q", "K", "V"):
        raise MechError(f"composition is Q, K or V, got {kind!r}", "name one of them")

    def compute(model: nn.Module, data: Data) -> Float[Tensor, ""]:
        with recorded(model) as (entered, written):
            whole = measure(model, data)
        if len(entered) != layer_count(model):
            raise MechError("its measure must call the model exactly once", "make it one call")
        with made_of(model, kind, without_heads(entered, written)):
            return whole - measure(model, data)

    return Readout(compute, needs_layers(2))


def without_heads(entered: list[Stream], written: list[Stream]) -> list[Stream]:
    """x̃ of each layer: the residual stream before it, with the attention outputs of earlier layers at their means."""
    varying = [output - output.mean((0, 1)) for output in written]
    return [stream - sum(varying[:layer]) for layer, stream in enumerate(entered)]


@contextmanager
def recorded(model: nn.Module) -> Iterator[tuple[list[Stream], list[Stream]]]:
    """While the block runs, the residual stream before each layer and what its attention writes are kept, with their graph."""
    entered: list[Tensor] = []
    written: list[Tensor] = []
    with _hooks() as hooks:
        for layer in range(layer_count(model)):
            norm, heads = attention_norm(model, layer), attention(model, layer)
            hooks.append(norm.register_forward_pre_hook(lambda _module, arguments: entered.append(arguments[0])))
            hooks.append(heads.register_forward_hook(lambda _module, _arguments, output: written.append(output[0])))
        yield entered, written


@contextmanager
def made_of(model: nn.Module, kind: Kind, streams: list[Stream]) -> Iterator[None]:
    """While the block runs, keys (queries, values) of each layer are made of the given residual stream, after its norm."""
    with _hooks() as hooks:
        for layer in range(1, len(streams)):
            module, _ = input_projection(model, layer, kind)
            hooks.append(module.register_forward_hook(_replaced(model, layer, kind, streams[layer])))
        yield


def _replaced(
    model: nn.Module, layer: int, kind: Kind, stream: Stream
) -> Callable[[nn.Module, object, Tensor], Tensor]:
    def hook(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        _, ours = input_projection(model, layer, kind)
        other = module.forward(attention_norm(model, layer)(stream))  # not a call: that would run this hook again
        return other if bool(ours.all()) else other.where(ours.to(output.device), output)

    return hook


@contextmanager
def _hooks() -> Iterator[list[RemovableHandle]]:
    hooks: list[RemovableHandle] = []
    try:
        yield hooks
    finally:
        for hook in hooks:
            hook.remove()
