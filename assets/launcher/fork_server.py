"""Imported by the fork server only, and first: it dies with its launcher, is deaf to Ctrl-C, and ends without a word.

Each worker holds what tells the fork server that somebody still needs it, so by itself it outlives a killed launcher for as
long as its workers compute, and they compute for nobody. The kernel ends it instead, and with it the workers.
DuckDB 2.0's binding prints a page about "leaked" objects when Python is finalised with modules that still refer to it,
which would be the last thing that `mech run` says. The fork server holds nothing that needs an orderly end.
"""

import atexit
import os
import signal

from mech_pipeline.parent import end_with_parent

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # its launcher blocked it until here
end_with_parent(parent=int(os.environ.pop("MECH_LAUNCHER_PID", "0")))
atexit.register(os._exit, 0)
