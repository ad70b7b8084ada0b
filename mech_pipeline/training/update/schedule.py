"""The learning rate of every update, η_t = η · warm-up(t) · decay(t).

warm-up(t) = min(1, (t + 1) / W), then with p = share of the way to the horizon that is done (in [0, 1]) and final share f

    constant:  1
    cosine:    f + (1 − f) (1 + cos πp) / 2                       p counts from the end of warm-up
    WSD:       1, then linearly from 1 to f                        p counts from the start of the decay

Sources: Loshchilov & Hutter 2017 (cosine), Hu et al. 2024 (WSD, warm-up–stable–decay). Beyond the horizon the rate
stays at its final share. A constant rate does not depend on the run's length; the others do, through the horizon.
Recorded `rates` replace all of this.
"""

import math

from mech_pipeline.spec.training import WSD_DECAY_SHARE, Optimizer


def learning_rate(spec: Optimizer, step: int) -> float:
    """η of update `step` (counted from 0).

    >>> wsd = Optimizer(learning_rate=1.0, warmup_steps=2, schedule="wsd", horizon=10, decay_steps=4)
    >>> [learning_rate(wsd, step) for step in range(11)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if spec.rates:
        return spec.rates[min(step, len(spec.rates) - 1)]
    warm = min(1.0, (step + 1) / spec.warmup_steps) if spec.warmup_steps else 1.0
    return spec.learning_rate * warm * _decay(spec, step)


def _decay(spec: Optimizer, step: int) -> float:
    if spec.schedule == "constant":
        return 1.0
    assert spec.horizon is not None, "a resolved run has the horizon of its schedule filled in (Optimizer.until)"
    if spec.schedule == "cosine":
        done = _share_done(step, spec.warmup_steps, spec.horizon)
        return spec.final_share + (1 - spec.final_share) * (1 + math.cos(math.pi * done)) / 2
    length = spec.decay_steps or max(1, round(WSD_DECAY_SHARE * spec.horizon))
    return 1 - (1 - spec.final_share) * _share_done(step, spec.horizon - length, spec.horizon)


def _share_done(step: int, begin: int, end: int) -> float:
    return min(1.0, max(0.0, (step - begin) / max(1, end - begin)))
