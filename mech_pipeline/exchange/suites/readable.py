"""A revision as the hub has it, as a folder that can be read: pickled weights are converted first."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.layout import BIN, CONFIG, check_shards


@contextmanager
def readable(folder: Path, place: str) -> Iterator[Path]:
    """A folder of `transformers` as it is, or converted where its weights are pickles.

    Raises:
        MechError: it has no weights, or not all of them.
    """
    if list(folder.glob("*.safetensors")):
        check_shards(folder, place)
        yield folder
        return
    if not list(folder.glob(f"{BIN}*")):
        raise MechError(f"{place} has neither *.safetensors nor {BIN}", "fetch the revision again")
    from mech_pipeline.exchange.suites.converting.bins import converted
    from mech_pipeline.exchange.suites.converting.written import written

    with written(lambda scratch: converted(folder, scratch, place), (folder / CONFIG).read_bytes()) as made:
        yield made
