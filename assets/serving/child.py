"""A process of `mech ui`, or one that it has started: ends with it, however that ends, and without a word.

DuckDB 2.0's binding prints a page about "leaked" objects when Python is finalised; nothing here needs an orderly end after
its last line.
"""

import atexit
import os
import runpy
import sys

from mech_pipeline.parent import end_with_parent

SILENT = "MECH_SILENT_END"
"""Set for what the UI starts: also the processes in which Dagster executes runs."""


def end_silently() -> None:
    """Lets this process end at once when its work is done, if it belongs to a UI."""
    if os.environ.get(SILENT):
        atexit.register(os._exit, 0)


def main(module: str, *arguments: str) -> None:
    """Runs a module as a program: one of Dagster's, or the web server."""
    end_with_parent()
    end_silently()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
