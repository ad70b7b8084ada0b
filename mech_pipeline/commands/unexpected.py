"""An error that nobody foresaw, in one line; its traceback goes to a file."""

import os
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.system_errors import in_words

FILE = "last_error.txt"


def explained(error: BaseException) -> MechError:
    """What went wrong: the operating system's fault in words, or the error's kind and where its traceback is."""
    if (sentence := in_words(error)) is not None:
        return sentence
    if isinstance(error, MemoryError):
        return MechError("the machine's memory is used up", "use fewer --workers, or a machine with more memory")
    trace = "".join(traceback.format_exception(error))
    return MechError(
        f"{type(error).__name__}: {error}", f"a mistake in this program; the traceback is in {keep(trace)}"
    )


def keep(trace: str) -> Path:
    """Writes a traceback where it can be found: beside Dagster's history, else among temporary files."""
    from mech_pipeline.project import find_project

    places = [Path(tempfile.gettempdir()) / f"mech-{os.getuid()}-{FILE}"]
    with suppress(MechError):
        places.insert(0, find_project().home / ".dagster" / FILE)
    for place in places:
        with suppress(OSError):
            place.parent.mkdir(exist_ok=True)
            place.write_text(trace, errors="backslashreplace")
            return place
    return places[-1]
