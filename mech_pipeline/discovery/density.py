"""HDBSCAN: clusters as regions that stay dense over the widest range of scales; points in none are noise.

Mutual reachability d(a, b) = max(core(a), core(b), |a − b|), core = distance to the `samples`-th neighbour; single linkage of it;
of the tree of clusters with at least `smallest` points those are kept whose excess of mass Σ (λ_leaves − λ_born), λ = 1/d, is
largest. The root is no answer. Source: Campello, Moulavi & Sander 2013 and Campello et al. 2015, as scikit-learn has it, whose
tree this follows. Written here on SciPy's linkage; cost and memory: squares of the number of points.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist, squareform


@dataclass
class _Branch:
    """A cluster of the condensed tree: born at density λ, with the densities at which its points left it."""

    born: float
    parent: "_Branch | None" = None
    left: list[tuple[int, float]] = field(default_factory=list)
    children: list["_Branch"] = field(default_factory=list)

    @property
    def own(self) -> float:
        """Excess of mass while it was one."""
        below = sum((child.born - self.born) * len(child.points) for child in self.children)
        return below + sum(leaves - self.born for _, leaves in self.left)

    @property
    def points(self) -> list[int]:
        """All points in it and below."""
        return [point for point, _ in self.left] + [point for child in self.children for point in child.points]


def hdbscan(points: Float[NDArray, "point dimension"], smallest: int, samples: int) -> Int[NDArray, " point"]:
    """The cluster of each point, from 0 on in order of size; −1: noise.

    Args:
        smallest: points of a cluster, at least.
        samples: neighbours that make a place dense.

    >>> line = np.concatenate([np.linspace(0, 1, 9), np.linspace(8, 9, 7), [30]])[:, None]
    >>> hdbscan(line, smallest=4, samples=2).tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, -1]
    """
    labels = np.full(len(points), -1, dtype=np.int64)
    if len(points) <= max(smallest, samples):
        return labels
    distance = squareform(pdist(points))
    core = np.sort(distance, axis=1)[:, samples]
    reach = np.maximum(distance, np.maximum(core[:, None], core[None, :]))
    tree = linkage(squareform(reach, checks=False), "single")
    chosen = sorted((branch.points for branch in _kept(_condensed(tree, smallest))), key=len, reverse=True)
    for number, members in enumerate(chosen):
        labels[members] = number
    return labels


def _condensed(tree: NDArray, smallest: int) -> _Branch:
    """The tree in which a branch of fewer points than `smallest` is points that leave."""
    count = len(tree) + 1
    size = np.concatenate([np.ones(count), tree[:, 3]]).astype(np.int64)
    root = _Branch(0.0)
    waiting = [(2 * count - 2, root)]
    while waiting:
        node, branch = waiting.pop()
        if node < count:
            branch.left.append((node, branch.born))
            continue
        density = 1 / max(float(tree[node - count, 2]), 1e-12)
        children = [int(tree[node - count, 0]), int(tree[node - count, 1])]
        large = [child for child in children if size[child] >= smallest]
        if len(large) == 2:
            branch.children = [_Branch(density, branch) for _ in children]
            waiting += zip(large, branch.children, strict=True)
            continue
        for child in children:
            if child not in large:
                branch.left += [(leaf, density) for leaf in _leaves(tree, child)]
        waiting += [(child, branch) for child in large]
    return root


def _leaves(tree: NDArray, node: int) -> list[int]:
    count, waiting, found = len(tree) + 1, [node], list[int]()
    while waiting:
        here = waiting.pop()
        if here < count:
            found.append(here)
        else:
            waiting += [int(tree[here - count, 0]), int(tree[here - count, 1])]
    return found


def _kept(root: _Branch) -> list[_Branch]:
    """The branches of most excess of mass, none inside another."""

    def best(branch: _Branch) -> tuple[float, list[_Branch]]:
        below = [best(child) for child in branch.children]
        mass = sum(each for each, _ in below)
        if branch.parent is not None and branch.own >= mass:
            return branch.own, [branch]
        return mass, [kept for _, some in below for kept in some]

    return best(root)[1]
