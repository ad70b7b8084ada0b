"""Mean loss of the sample."""

from mech_pipeline.signals.signal import Signal

SIGNAL = Signal(
    compute=lambda at: float(at.losses.mean()),
    unit="nats",
    meaning="mean loss of a fixed sample of training examples",
    source="what every training run logs",
    baseline=True,
)
