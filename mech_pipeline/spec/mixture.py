"""Mixture over time (curriculum): which share of each batch comes from which group of examples, from which update on.

A group is a kind of example (`plain`, `tiled`, `packed`), a part of the corpus (`code`), or both (`code/plain`).
"""

from collections.abc import Iterable, Mapping

from pydantic import ConfigDict, Field, field_validator

from mech_pipeline.spec.stage import Stage

KINDS = ("plain", "tiled", "packed")


class Phase(Stage):
    """Shares of the groups, from one update until the next phase begins."""

    model_config = ConfigDict(populate_by_name=True)

    begin: int = Field(alias="from", ge=0, description="first update of the phase")
    weights: dict[str, float] = Field(description="by group; shares are weights divided by their sum")

    @field_validator("weights")
    @classmethod
    def _some_weight(cls, weights: dict[str, float]) -> dict[str, float]:
        if negative := [name for name, weight in weights.items() if weight < 0]:
            raise ValueError(f"weight of group {negative[0]!r} is negative: {weights[negative[0]]}")
        if not any(weights.values()):
            raise ValueError(f"all weights are zero: {weights or 'no group is named'}; give one of them a weight")
        return weights


def atoms(kinds: Iterable[str], parts: Iterable[str]) -> tuple[str, ...]:
    """The smallest groups: `kind`, or `part/kind` where the corpus has parts.

    >>> atoms(["plain", "tiled"], ["code", "prose"])
    ('code/plain', 'prose/plain', 'code/tiled', 'prose/tiled')
    """
    parts = list(parts)
    return tuple(f"{part}/{kind}" for kind in kinds for part in parts) if parts else tuple(kinds)


def members(group: str, names: Iterable[str]) -> frozenset[str]:
    """The smallest groups that a group of a mixture consists of.

    >>> sorted(members("code", ["code/plain", "code/tiled", "prose/plain"]))
    ['code/plain', 'code/tiled']
    """
    return frozenset(name for name in names if group == name or group in name.split("/"))


def check_mixture(mixture: tuple[Phase, ...], shares: Mapping[str, float], parts: Iterable[str]) -> None:
    """Whether every group can be had and groups share no examples.

    Args:
        shares: share of each kind in the pool.

    Raises:
        ValueError: a group does not exist, is empty, or overlaps another; phases are not in order.
    """
    if not mixture:
        return
    begins = [phase.begin for phase in mixture]
    if begins[0] != 0 or begins != sorted(set(begins)):
        raise ValueError(f"data.mixture: phases must begin at rising updates, the first at 0; they begin at {begins}")
    parts = list(parts)
    known = atoms(KINDS, parts)
    there = set(atoms([kind for kind in KINDS if shares[kind] > 0], parts))
    owner: dict[str, str] = {}
    for group in dict.fromkeys(name for phase in mixture for name in phase.weights):
        found = members(group, known)
        if not found:
            allowed = dict.fromkeys([*(k for k in KINDS if shares[k] > 0), *parts, *sorted(there)])
            raise ValueError(f"data.mixture: unknown group {group!r}; allowed: {', '.join(allowed)}")
        if not found & there:
            raise ValueError(f"data.mixture: group {group!r} is empty: the pool has no share of {group.split('/')[-1]}")
        for name in found:
            if name in owner:
                raise ValueError(
                    f"data.mixture: groups {owner[name]!r} and {group!r} overlap; name groups that share no examples"
                )
            owner[name] = group
