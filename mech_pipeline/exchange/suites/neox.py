"""Native checkpoints of GPT-NeoX (Pythia's `neox-ckpt-…`): a folder `global_step1000/` per step, config.json beside them.

What lies in the files is in `converting/neox.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.layout import CONFIG, DEEPSPEED_MODEL, Revision, by_step, sampled_identity
from mech_pipeline.spec.imported import Imported


class NeoX:
    """See the module."""

    def revisions(self, spec: Imported) -> list[Revision]:
        """What there is, by rising step."""
        place = spec.home / spec.place
        if not place.is_dir():
            raise MechError(f"imported.place: there is no folder {place}", "name the folder with global_step… in it")
        named = by_step((path.parent.name for path in place.glob(f"*/{DEEPSPEED_MODEL}")), spec, str(place))
        return [Revision(step, name, sampled_identity((place / name).glob("*.pt"), name)) for step, name in named]

    def config(self, spec: Imported, name: str) -> bytes:
        """The one beside the steps."""
        path = spec.home / spec.place / CONFIG
        if not path.is_file():
            raise MechError(
                f"{path.parent} has no {CONFIG}", "put the config.json of the same model in `transformers` there"
            )
        return path.read_bytes()

    @contextmanager
    def opened(self, spec: Imported, name: str) -> Iterator[Path]:
        """A converted copy that is gone afterwards."""
        from mech_pipeline.exchange.suites.converting.neox import converted
        from mech_pipeline.exchange.suites.converting.written import written

        folder = spec.home / spec.place / name
        step = spec.step_of(name)
        with written(lambda scratch: converted(folder, scratch, step), self.config(spec, name)) as made:
            yield made
