"""Ctrl-C, `kill` and a closed terminal: a program ends within seconds, says so in one line, and leaves no process behind.

The first signal raises `Stopped` in the main thread, so that what is open is closed in order. Libraries that run for long
outside Python, or swallow the exception, do not hold it up: a thread that the system wakes waits a few seconds and then ends
the process and its children. A second signal ends them at once. Nothing that was acknowledged is lost by that: the store
survives any kill.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

PATIENCE_SECONDS = 6.0
_SIGNS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """The program was asked to end."""


class _State:
    asked: signal.Signals | None = None
    told = False
    sentence = "stopped"
    say: Callable[[str], None] = print


def listen(say: Callable[[str], None]) -> None:
    """Ends this program in order from now on; called once, by its main thread.

    A shell starts what it runs in the background with SIGINT ignored; it is heard all the same, because a person who sends
    it means it. An ignored SIGHUP (`nohup`) stays ignored.

    Args:
        say: shows the last line.
    """
    _State.say = say
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for sign in _SIGNS:
        if sign != signal.SIGHUP or signal.getsignal(sign) != signal.SIG_IGN:
            signal.signal(sign, _stop)
    threading.Thread(target=_watch, args=(reader,), name="stopping", daemon=True).start()


def asked() -> signal.Signals | None:
    """The signal that this program was asked to end with; none: it was not."""
    return _State.asked


def promise(sentence: str) -> None:
    """What is said when the program is stopped from now on, for example that nothing is lost."""
    _State.sentence = sentence


def tell() -> None:
    """Says that the program was stopped, once."""
    if not _State.told:
        _State.told = True
        with suppress(Exception):
            _State.say(_State.sentence)


def _stop(number: int, frame: FrameType | None) -> None:
    if _State.asked is None:
        _State.asked = signal.Signals(number)
        raise Stopped


def _watch(reader: int) -> None:
    """Woken by each signal, also while the main thread does not look."""
    while True:
        number = os.read(reader, 1)[0]
        if number in _SIGNS and signal.getsignal(number) is _stop:
            break
    deadline = threading.Timer(PATIENCE_SECONDS, _leave, (number,))
    deadline.daemon = True
    deadline.start()
    while os.read(reader, 1)[0] not in _SIGNS:
        pass
    _leave(number)


def _leave(number: int) -> None:
    """Ends the process and its children now."""
    tell()
    if "multiprocessing" in sys.modules:
        import multiprocessing

        for child in multiprocessing.active_children():
            with suppress(Exception):
                child.kill()
    os._exit(128 + number)
