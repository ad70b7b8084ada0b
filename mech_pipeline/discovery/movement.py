"""The loss-change ledger of probe tokens: which component's movement changed the loss of which token, window by window.

    ΔL[x, c] = Σ_t ⟨∫₀¹ ∇_c L_x(θ_t + u Δ_t) du, Δ_t,c⟩,     Δ_t = θ_{t+1} − θ_t

x a probe token, L_x its loss, c a component (head Q/K/V/O, MLP, embedding, …), t the updates of a window. Over components it
sums to the measured change of L_x, a line integral along the path that training took. It is POLCA (2025, §3) with named
components in place of Hessian eigenvectors: nothing is left over, and there is nothing to be named.

The integral is by Gauss nodes along each straight piece: two where a piece is one update, more where it is several (`Path`); a
window whose tokens miss their measured change is done again with pieces cut in 2, 4, ….

Every probe token has a sequence of its own, so one forward and backward gives ∇L_x of many tokens at once, contracted with
Δ_t by component as the ledger's per-example gradients are (`attribution/per_example/contraction.py`). Forward mode would need
a tangent for each component: as fast at some 40 components if many tokens share a sequence, never if they do not.
Cost of a node: a forward and backward of the probe (half as long as its sequences, on average; logits at one place of each).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mech_pipeline.attribution.ledger.balance import BALANCE_TOLERANCE, RESOLUTION, RESOLUTION_PER_UPDATE
from mech_pipeline.attribution.per_example.capture import example_factors
from mech_pipeline.attribution.per_example.components import Components
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.discovery.probe_tokens import ProbeTokens
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.update.optimizer import Vector

_MOST_PANELS = 64


@dataclass(frozen=True)
class Movement:
    """What moved the probe tokens' losses over one window.

    Attributes:
        parts: ΔL, nats; below 0: the component made the token more likely.
        before, after: losses in double precision.
        gross: Σ over pieces of the path of |Σ_c ΔL|.
        pieces: of the path, before any was divided.
    """

    parts: Float[Tensor, "probe component"]
    before: Float[Tensor, " probe"]
    after: Float[Tensor, " probe"]
    gross: Float[Tensor, " probe"]
    pieces: int

    @property
    def error(self) -> Float[Tensor, " probe"]:
        """|explained − measured| of each token."""
        return (self.parts.sum(1) - (self.after - self.before)).abs()

    @property
    def balanced(self) -> Bool[Tensor, " probe"]:
        """Whether each token's parts sum to its measured change, as exactly as the ledger's must."""
        allowed = BALANCE_TOLERANCE * self.gross + RESOLUTION + RESOLUTION_PER_UPDATE * self.pieces
        return self.error <= allowed


class Meter:
    """Measures movements of one probe in one model.

    Args:
        flat: the model; its parameters are overwritten.
        exact: the same model in double precision, for the measured losses.
    """

    def __init__(self, flat: FlatModel, exact: FlatModel, components: Components, probe: ProbeTokens) -> None:
        self._flat, self._exact, self._probe = flat, exact, probe.to(flat.vector.device)
        self._contraction = Contraction(flat, components)

    def losses(self, theta: Vector) -> Float[Tensor, " probe"]:
        """L_x of all tokens, in double precision."""
        self._exact.load(theta.double())
        found = torch.empty(len(self._probe), dtype=torch.float64, device=theta.device)
        with torch.no_grad():
            for rows, some in self._probe.chunks():
                found[rows] = some.losses(self._exact.model, some.tokens)
        return found

    def movement(self, states: Sequence[Vector], nodes: int = 2) -> Movement:
        """ΔL of a window.

        Args:
            states: θ along the path, from the window's begin to its end: after every update or every few of them, or the two
                ends alone for the straight line between them. All sum to the same change; fewer tell less of who made it.
            nodes: of each straight piece: it is exact where the loss is a polynomial of degree 2 · nodes along it.
        """
        before, after, panels = self.losses(states[0]), self.losses(states[-1]), 1
        while True:
            parts, gross = self._along(states, nodes, panels)
            found = Movement(parts, before, after, gross, len(states) - 1)
            if bool(found.balanced.all()) or panels >= _MOST_PANELS:
                return found
            panels *= 2

    def _along(
        self, states: Sequence[Vector], nodes: int, panels: int
    ) -> tuple[Float[Tensor, "probe component"], Float[Tensor, " probe"]]:
        parts: Tensor = torch.zeros(1, dtype=torch.float64, device=states[0].device)
        gross: Tensor = parts
        places, weights = np.polynomial.legendre.leggauss(nodes)  # on [−1, 1]
        for begin, end in pairwise(states):
            step = (end.double() - begin.double()).to(begin)
            for panel in range(panels):
                here = torch.zeros_like(parts)
                for place, weight in zip(places.tolist(), weights.tolist(), strict=True):
                    here = here + weight / (2 * panels) * self._at(begin, step, (panel + (1 + place) / 2) / panels)
                parts = parts + here
                gross = gross + here.sum(1).abs()
        return parts, gross

    def _at(self, begin: Vector, step: Vector, u: float) -> Float[Tensor, "probe component"]:
        """⟨∇_c L_x(θ + uΔ), Δ_c⟩ of every token and component."""
        self._flat.load(begin + u * step)
        shape = (len(self._probe), len(self._contraction.names))
        found = torch.zeros(shape, dtype=torch.float64, device=begin.device)
        for rows, some in self._probe.chunks():
            factors = example_factors(self._flat.model, some.tokens, self._contraction.modules, some.losses)
            found[rows] = self._contraction(factors, step[None])[0]
        return found
