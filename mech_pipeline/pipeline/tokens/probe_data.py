"""Probe data are made once before a run is trained, so that prompts that do not fit cost no training."""

from collections.abc import Iterator
from contextlib import contextmanager

from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.circuits.circuit import clean_and_corrupted
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.registry import DETECTORS, MECHANISMS
from mech_pipeline.spec.run import RunSpec


def check_probe_data(spec: RunSpec, probe: Probe) -> None:
    """Makes the probe data of all mechanisms, circuits and detectors of a run: milliseconds each.

    Raises:
        MechError: a prompt does not fit the vocabulary or the context, or corrupted data do not fit the data.
    """
    asked = (*spec.measured, *spec.gradients, *spec.ledger, *spec.influence.mechanisms)
    for name in dict.fromkeys(asked):
        with _naming(f"mechanism {name}"):
            probe.of(name, MECHANISMS[name].data)
    for name in spec.circuits.mechanisms:
        with _naming(f"circuit of {name}"):
            clean_and_corrupted(MECHANISMS[name], probe)
    for name in spec.detectors:
        if (made := DETECTORS[name].data) is not None:
            with _naming(f"detector {name}"):
                probe.of(*made)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    try:
        yield
    except MechError as error:
        raise MechError(f"{what}: {error.problem}", error.next_step) from error
