"""`mech`: how a command begins and ends. The commands themselves are listed in `commands/table.py`.

However a command ends, it ends here: an error that people can act on, a fault of the operating system, a signal, a reader
that has seen enough, a mistake in this program. Each is one line on stderr and an exit code; no command handles them itself.
"""

import sys

from mech_pipeline import stopping
from mech_pipeline.commands import output

_SIGPIPE = 141  # as a shell reports a program whose reader went away


def main() -> None:
    """Entry point. Exit codes: 1 for an error, 2 for wrong usage, 128 + the signal's number where a signal ended it."""
    output.prepare_streams()
    stopping.listen(output.complain)  # before the imports, which take a while on a busy machine
    sys.exit(_ended())


def _ended() -> int:
    try:
        code = _run()
    except (Exception, KeyboardInterrupt) as error:
        code = _explain(error)
    except BaseException as error:  # a panic of a library in Rust
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        else:
            code = _explain(error)
    if (sign := stopping.asked()) is not None:
        stopping.tell()
        return 128 + sign
    return code


def _run() -> int:
    import warnings

    warnings.filterwarnings("ignore", message=".*is currently in (beta|preview)")  # Dagster says so on every import
    import typer.main

    from mech_pipeline.commands.table import app

    code = typer.main.get_command(app).main(prog_name="mech", standalone_mode=False)
    return code if isinstance(code, int) else 0


def _explain(error: BaseException) -> int:
    """Says what went wrong in one line; returns the exit code."""
    from mech_pipeline.errors import MechError

    if stopping.asked() is not None:
        return 1  # whatever it was, the signal caused it
    if isinstance(error, output.NobodyReads):
        return _SIGPIPE
    if isinstance(error, MechError):
        output.complain(error)
        return 1
    show = getattr(error, "show", None)
    if show is not None and hasattr(error, "exit_code"):  # typer's own: wrong usage
        show()
        return int(error.exit_code)
    from mech_pipeline.commands.unexpected import explained

    output.complain(explained(error))
    return 1


if __name__ == "__main__":
    main()
