"""All comparisons of an experiment on one mechanism: shifts over pairs, Holm over all of them, and what they could have shown.

Holm takes every comparison that the experiment file names, also one that came to no pair: what is claimed must not depend
on which runs formed. A claim is a comparison with p after Holm below 5 %.
Sources: Holm 1979 for the family; `causal.paired` and `causal.survival` for each comparison.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mech_pipeline.causal.arms import Pair
from mech_pipeline.causal.paired import Shift, paired_differences, shift
from mech_pipeline.causal.survival import Formed, log_rank
from mech_pipeline.statistics.enrichment import holm
from mech_pipeline.statistics.power import detectable

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """An arm against another, on one mechanism.

    Attributes:
        shift: over pairs; none: no pair says anything.
        reference_step: median step at which the reference formed in these pairs; none: it formed in none.
        p_holm: of the shift, after Holm.
        smallest_p_holm: what as many pairs could have given at least, if it were the smallest of all.
        detectable: shift that as many pairs of this spread show with a chance of 80 % at 5 % over all comparisons; none:
            no shift, however large, or the pairs do not differ among each other.
        p_log_rank: that both arms form at the same rate, not paired; none: nothing formed.
    """

    arm: str
    reference: str
    shift: Shift | None
    reference_step: float | None
    p_holm: float | None
    smallest_p_holm: float | None
    detectable: float | None
    p_log_rank: float | None

    @property
    def relative(self) -> float | None:
        """Shift as a share of the reference's step."""
        return None if self.shift is None or not self.reference_step else self.shift.steps / self.reference_step


def compare(pairs: Sequence[Pair], formed: Mapping[str, Sequence[Formed]]) -> list[Comparison]:
    """Every pair of arms; `formed` has the runs of each arm, and may lack some."""
    shifts = [shift(formed.get(pair.arm, ()), formed.get(pair.reference, ())) for pair in pairs]
    adjusted = holm(np.array([1.0 if found is None else found.p for found in shifts])).tolist()
    return [
        _comparison(pair, found, p, len(pairs), formed) for pair, found, p in zip(pairs, shifts, adjusted, strict=True)
    ]


def _comparison(
    pair: Pair, found: Shift | None, p_holm: float, family: int, formed: Mapping[str, Sequence[Formed]]
) -> Comparison:
    arm, reference = formed.get(pair.arm, ()), formed.get(pair.reference, ())
    p_log_rank = log_rank(arm, reference) if arm and reference else None
    if found is None:
        return Comparison(pair.arm, pair.reference, None, None, None, None, None, p_log_rank)
    smallest = min(1.0, found.smallest_p * family)
    d = paired_differences(arm, reference)
    spread = float(d.std(ddof=1)) if len(d) > 1 else 0.0
    return Comparison(
        pair.arm,
        pair.reference,
        found,
        _reference_step(arm, reference),
        p_holm,
        smallest,
        detectable(spread, len(d), LEVEL / family) if smallest <= LEVEL else None,
        p_log_rank,
    )


def _reference_step(arm: Sequence[Formed], reference: Sequence[Formed]) -> float | None:
    seeds = {run.seed for run in arm}
    steps = [run.upper for run in reference if run.seed in seeds and run.upper is not None]
    return float(np.median(steps)) if steps else None
