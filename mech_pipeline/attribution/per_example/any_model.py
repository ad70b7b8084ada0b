"""⟨∇ℓ_i, V⟩ by component for a model of any kind, whatever it does with its parameters.

Most parameters of most models sit in layers whose per-example gradient is known from one batch (`contraction.py`). Which ones
do is not guessed from their names: on a trial of two examples, at weights a little beside the model's, what a layer gives must
be what a backward of each example alone gives. A position embedding of one row for the whole batch, a bare `nn.Parameter`, a
convolution, a layer that is used twice, a weight that is tied by hand fail that, and so does whatever nobody has thought of.

Their parameters get the gradient of each example by `torch.func.vmap(grad)`. Cost: another forward and backward of the
batch for each update, and memory for the gradients of some examples (`GRADIENT_BYTES`); where the model cannot be
vectorised (its control flow depends on data), a forward and backward of each example alone.
"""

from collections.abc import Callable, Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mech_pipeline.attribution.per_example.capture import Factors
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.attribution.per_example.outer_products import GRADIENT_BYTES
from mech_pipeline.attribution.per_example.trial import Trial
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Trainer, Update
from mech_pipeline.training.model import example_losses

AnyFactors = tuple[Update, Factors]
"""An update, and the factors of the layers whose per-example gradient is known."""
Gradients = dict[str, Tensor]
"""By parameter, [example, *shape]."""


class AnyContraction:
    """Contracts the gradients of an update's examples with directions; called like `Contraction`.

    Attributes:
        modules: names of the layers whose factors are needed.
        slowly: names of the parameters whose gradient is taken example by example.
    """

    def __init__(self, trainer: Trainer, components: Components, examples: Int[Tensor, " example"]) -> None:
        self._trainer, self._components = trainer, components
        trial = Trial(trainer.flat, trainer.tokens(examples[:2]))
        self.modules = trial.known_modules()
        self._fast = Contraction(trainer.flat, components, within=self.modules)
        self.slowly = trial.parameters_outside(self.modules)
        self._gradients = _gradients_way(trainer.flat, self.slowly, trial)

    def __call__(
        self, factors: AnyFactors, directions: Float[Tensor, "direction parameter"]
    ) -> Float[Tensor, "direction example component"]:
        """⟨∇ℓ_i/B, V⟩ split by component."""
        made, known = factors
        shape = (len(directions), len(made.examples), len(self._components.names))
        total = torch.zeros(shape, dtype=torch.float64, device=directions.device)
        if known:
            total += self._fast(known, directions)
        if self.slowly:
            self._add_slow(total, made, directions)
        return total

    def _add_slow(self, total: Tensor, made: Update, directions: Tensor) -> None:
        flat, batch = self._trainer.flat, len(made.examples)
        flat.load(made.before.theta)
        named, index = flat.named(directions[0]), flat.named(self._components.index)
        entries = sum(named[name].numel() for name in self.slowly)
        step = max(1, GRADIENT_BYTES // (entries * directions.element_size()))
        ways = [flat.named(direction) for direction in directions]
        for begin in range(0, batch, step):
            some = slice(begin, begin + step)
            gradients = self._gradients(self._trainer.tokens(made.examples[some]))
            for name, gradient in gradients.items():
                rows, places = gradient.flatten(1).double() / batch, index[name].flatten()
                for number, way in enumerate(ways):
                    products = rows * way[name].flatten().double()
                    if bool((places == places[0]).all()):
                        total[number, some, places[0]] += products.sum(1)
                    else:
                        total[number, some] = total[number, some].index_add(1, places, products)


def _gradients_way(flat: FlatModel, names: Collection[str], trial: Trial) -> Callable[[Tensor], Gradients]:
    """All examples of a batch at once if that gives what one backward for each gives, else one after the other."""

    def one_by_one(tokens: Tensor) -> Gradients:
        return gradients_one_by_one(flat, names, tokens)

    def together(tokens: Tensor) -> Gradients:
        return gradients_together(flat, names, tokens)

    try:
        return together if not names or trial.agrees(together) else one_by_one
    except Exception:  # whatever a model of somebody's own does that cannot be vectorised
        return one_by_one


def gradients_together(flat: FlatModel, names: Collection[str], tokens: Int[Tensor, "example token"]) -> Gradients:
    """∇ℓ_i at the model's weights by some parameters, vectorised over examples."""
    at = {name: value.detach() for name, value in flat.named(flat.vector).items()}

    def loss(chosen: dict[str, Tensor], example: Tensor) -> Tensor:
        return example_losses(_At(flat.model, {**at, **chosen}), example[None])[0]

    found: Gradients = vmap(grad(loss), in_dims=(None, 0))({name: at[name] for name in names}, tokens)
    return found


class _At(nn.Module):
    """A model with other parameters, which stay what `vmap` makes of them."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor]) -> None:
        super().__init__()
        self._called = lambda tokens: functional_call(model, parameters, (tokens,))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        with sdpa_kernel(SDPBackend.MATH):
            found: Tensor = self._called(tokens)
            return found


def gradients_one_by_one(flat: FlatModel, names: Collection[str], tokens: Int[Tensor, "example token"]) -> Gradients:
    """The same with a backward for each example."""
    chosen = [parameter for slot, parameter in zip(flat.slots, flat.parameters, strict=True) if slot.name in names]
    ordered = [slot.name for slot in flat.slots if slot.name in names]
    rows = []
    for example in tokens:
        loss = example_losses(flat.model, example[None])[0]
        rows.append(torch.autograd.grad(loss, chosen, allow_unused=True, materialize_grads=True))
    return {name: torch.stack(column) for name, column in zip(ordered, zip(*rows, strict=True), strict=True)}
