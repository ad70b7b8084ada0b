"""A process of `mech ui`: ends with it, however that ends, and without a word.

DuckDB 2.0's binding prints a page about "leaked" objects when Python is finalised; nothing here needs an orderly end after
its last line.
"""

import atexit
import os
import runpy
import sys

from mech_pipeline.parent import end_with_parent


def main(what: str, *arguments: str) -> None:
    """Runs a module of Dagster as a program, or the web server.

    Args:
        what: `web`, or the name of the module.
    """
    end_with_parent()
    atexit.register(os._exit, 0)
    if what == "web":
        from mech_pipeline.assets.serving.web import serve

        host, port, workspace = arguments
        serve(host, int(port), workspace)
        return
    sys.argv = [what, *arguments]
    runpy.run_module(what, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
