"""The gradient of one batch loss as a graph that can be differentiated once more.

With a weight w_{ij} on the loss ℓ_{ij} of every target token j of every example i,

    L = (1/B) Σ_i (1/(T−1)) Σ_j w_{ij} ℓ_{ij},        g = ∇_θ L,

one backward through ⟨g, u⟩ gives both ∂⟨g, u⟩/∂w_{ij} = ⟨∇ℓ_{ij}, u⟩ / (B (T−1)) and the Hessian-vector product H u.
Every further direction u costs another backward through the same graph: two training steps' worth of products, the
graph itself is one. So graphs that a replay has made anyway are worth keeping as long as memory allows (`replay.py`).
Parameters are leaves of their own, because the model's are overwritten by the next state.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from mech_pipeline.errors import MechError
from mech_pipeline.training.flat import flatten
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.many.ranks import tree_sum
from mech_pipeline.training.model import next_token_losses
from mech_pipeline.training.update.optimizer import Vector


class _At(nn.Module):
    """A model at other parameters than its own."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self.__dict__.update(_model=model, _parameters=parameters)

    def forward(self, tokens: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # fused kernels have no second derivative
            return functional_call(self.__dict__["_model"], self.__dict__["_parameters"], (tokens,))


@dataclass(frozen=True)
class _Part:
    """One micro-batch: its weights, and its share of the gradient per parameter."""

    weights: Float[Tensor, "example target"]
    gradients: tuple[Tensor, ...]


class GradientGraph:
    """∇L of one update's batch at θ, through the math kernels and in the precision of θ.

    Args:
        theta: the state before the update.
        examples: the batch, indices into the pool.
        step: the update; it decides weights that belong to the data.
    """

    def __init__(self, trainer: Trainer, theta: Vector, examples: Int[Tensor, " example"], step: int) -> None:
        named = trainer.flat.named(theta)
        self._parameters = {name: part.detach().clone().requires_grad_() for name, part in named.items()}
        self._named = trainer.flat.named
        model = _At(trainer.flat.model, self._parameters)
        self._parts, losses = [], []
        for part in trainer.micro_batches(examples):
            token_losses = next_token_losses(model, trainer.tokens(part))
            weights = torch.ones_like(token_losses)
            given = trainer.weights_at(step, part)
            if given is not None:
                weights = weights * given.to(weights)[:, None]
            weights = weights.detach().requires_grad_()
            loss = (weights * token_losses).mean(dim=1).mean() / trainer.training.micro_batches
            gradients = torch.autograd.grad(
                loss, list(self._parameters.values()), create_graph=True, allow_unused=True, materialize_grads=True
            )
            self._parts.append(_Part(weights, gradients))
            losses.append(loss.detach())
        self.loss = float(tree_sum(losses))

    def check_twice_differentiable(self) -> None:
        """Looks for operations that end the graph. PyTorch would leave their part of H u out without a word.

        Raises:
            MechError: there is one (a custom function marked `once_differentiable`).
        """
        waiting = [gradient.grad_fn for part in self._parts for gradient in part.gradients]
        seen = set()
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node.name().endswith("::Error"):
                raise _no_second_derivative("one is marked once_differentiable")
            waiting.extend(following for following, _ in node.next_functions)

    @property
    def gradient(self) -> Vector:
        """g as a vector; where no example weighs other than 1, with the bits of training."""
        return tree_sum([torch.cat([g.detach().reshape(-1) for g in part.gradients]) for part in self._parts])

    def pull(
        self, directions: Float[Tensor, "direction parameter"]
    ) -> tuple[Float[Tensor, "direction example target"], Float[Tensor, "direction parameter"]]:
        """(⟨∇ℓ_ij, u⟩ / (B (T−1)) for every example and target token, H u), of every direction u; frees the graph."""
        leaves = list(self._parameters.values())
        scores, products = [], torch.zeros_like(directions)
        for part in self._parts:
            of_part = []
            for index, direction in enumerate(directions):
                ways = zip(part.gradients, self._named(direction).values(), strict=True)
                reached = [(gradient, way) for gradient, way in ways if gradient.requires_grad]
                with _twice_differentiable():
                    by_weight, *by_parameter = torch.autograd.grad(
                        [gradient for gradient, _ in reached],
                        [part.weights, *leaves],
                        grad_outputs=[way for _, way in reached],
                        retain_graph=index + 1 < len(directions),
                        allow_unused=True,  # a parameter that enters linearly everywhere has no second derivative
                    )
                of_part.append(by_weight)
                products[index] += flatten(tuple(by_parameter), leaves)
            scores.append(torch.stack(of_part))
        return torch.cat(scores, dim=1), products


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Says in words what an operation without a second derivative means."""
    try:
        yield
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise _no_second_derivative(" ".join(str(error).split())[:200]) from error


def _no_second_derivative(which: str) -> MechError:
    return MechError(
        f"the model has an operation without a second derivative: {which}",
        "influence needs one: use plain attention and functions instead of fused kernels",
    )


def graph_bytes(trainer: Trainer, theta: Vector, step: int) -> int:
    """Memory that the graph of one update holds, counted by building one."""
    seen: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        graph = GradientGraph(trainer, theta, trainer.batch(step), step)
    return sum(seen.values()) + graph.gradient.nbytes
