"""Mean loss at the rarest tokens of the sample: what happens seldom is learned late, and seen first where it is rare."""

from mech_pipeline.signals.signal import Signal

SIGNAL = Signal(
    compute=lambda at: float(at.token_losses[at.rare_targets].mean()),
    unit="nats",
    meaning="mean loss at the sample's rarest tokens",
    source="the cheapest look at what is rare",
    baseline=True,
)
