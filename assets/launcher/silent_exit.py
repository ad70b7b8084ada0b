"""Imported by the fork server only: it ends without taking the interpreter apart.

DuckDB 2.0's binding prints a page about "leaked" objects when Python is finalised with modules that still refer to it,
which would be the last thing that `mech run` says. The fork server holds nothing that needs an orderly end.
"""

import atexit
import os

atexit.register(os._exit, 0)
