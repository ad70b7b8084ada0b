"""‖∇L‖ of the mean loss of the sample's first examples."""

from mech_pipeline.signals.signal import Signal

SIGNAL = Signal(
    compute=lambda at: float(at.mean_gradient.double().norm()),
    unit="nats per unit of weight",
    meaning="L2 norm of the mean gradient",
    source="what every training run logs",
    baseline=True,
)
