"""Spread of losses over examples, by their mean: some examples are learned and others are not."""

from mech_pipeline.signals.signal import Signal

SIGNAL = Signal(
    compute=lambda at: float(at.losses.std() / at.losses.mean()),
    unit="1",
    meaning="standard deviation of the sample's losses, divided by their mean",
    source="data maps: Swayamdipta et al. 2020",
)
