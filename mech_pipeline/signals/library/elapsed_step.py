"""The step itself: what time alone tells. A signal that does not beat it has heard nothing."""

from mech_pipeline.signals.signal import Signal

SIGNAL = Signal(
    compute=lambda at: float(at.step),
    unit="updates",
    meaning="updates done",
    source="the prior that every precursor must beat",
    baseline=True,
)
