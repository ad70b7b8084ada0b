"""Where tensors live, and the settings that make a device repeat itself bit for bit."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
import torch.utils.deterministic

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
    before = torch.get_num_threads()
    torch.set_num_threads(training.threads)
    try:
        with _deterministic_kernels if training.device == "cuda" else nullcontext():
            yield
    finally:
        torch.set_num_threads(before)


class _DeterministicKernels:
    """On while any thread is inside: the setting belongs to the process, and the runs of a stack end one by one."""

    def __init__(self) -> None:
        self._lock, self._inside, self._before = threading.Lock(), 0, (False, True)

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = torch.are_deterministic_algorithms_enabled(), _filling.fill_uninitialized_memory
                os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first handle is made
                torch.use_deterministic_algorithms(True)
                _filling.fill_uninitialized_memory = False  # a kernel for every new tensor; replays are checked anyway
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                torch.use_deterministic_algorithms(self._before[0])
                _filling.fill_uninitialized_memory = self._before[1]


_filling = cast(Any, torch.utils.deterministic)
_deterministic_kernels = _DeterministicKernels()
