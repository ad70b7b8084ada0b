"""Where tensors live, and the settings that make a device repeat itself bit for bit."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mech_pipeline.errors import MechError
from mech_pipeline.spec.training import Training


def training_device(training: Training) -> torch.device:
    """The device a run is trained and replayed on; under torchrun each process has a GPU of its own.

    Raises:
        MechError: this machine has no such device.
    """
    if training.device == "cpu":
        return torch.device("cpu")
    index, present = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= present:
        raise MechError(
            f"training.device is cuda, but process {index} of this machine finds {present} GPUs",
            "run it where there are as many GPUs as training.processes, or set training.device: cpu (other bits)",
        )
    return torch.device("cuda", index)


@contextmanager
def computing(training: Training) -> Iterator[None]:
    """Runs the block with the settings that decide the bits: the CPU thread count, and deterministic GPU kernels."""
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(training.threads)
    if training.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first handle is made
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic)
