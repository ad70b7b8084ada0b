"""Induction by composition: what it loses when later heads' keys, queries or values are made without earlier heads."""

from mech_pipeline.mechanisms.ablation.path_patching import Kind, composition_effect
from mech_pipeline.mechanisms.mechanism import Mechanism
from mech_pipeline.mechanisms.sequences import Sequences
from mech_pipeline.mechanisms.source import tiled
from mech_pipeline.mechanisms.tasks.induction import copy_advantage

_READ: dict[str, tuple[Kind, str]] = {"k": ("K", "keys"), "q": ("Q", "queries"), "v": ("V", "values")}

MECHANISMS: dict[str, Mechanism[Sequences]] = {
    f"induction_{letter}_composition": Mechanism(
        readout=composition_effect(kind, copy_advantage),
        data=tiled,
        unit="nats",
        meaning=f"copy advantage lost when heads' {name} are made without what earlier heads write, held-out text",
    )
    for letter, (kind, name) in _READ.items()
}
