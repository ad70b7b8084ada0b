"""‖θ‖."""

from mech_pipeline.signals.signal import Signal

SIGNAL = Signal(
    compute=lambda at: float(at.theta.double().norm()),
    unit="1",
    meaning="L2 norm of all weights",
    source="a strong baseline in grokking: Liu et al. 2022 (Omnigrok)",
    baseline=True,
)
