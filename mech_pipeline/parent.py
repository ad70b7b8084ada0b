"""A process that ends when the process that started it does, however that one ends."""

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent(sent: signal.Signals = signal.SIGKILL) -> None:
    """Lets the kernel send this process a signal when its parent has died. Only Linux can; elsewhere nothing happens.

    Whoever is killed then leaves no trainer behind. A parent that is dead already is not noticed.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sent)
