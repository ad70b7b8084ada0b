"""Which folder of mechanisms this process uses beside the package's own."""

from pathlib import Path

from mech_pipeline.project import find_mechanisms


class Chosen:
    """The project's folder of mechanisms, as whoever began the program has said."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._said = False

    def use(self, folder: Path | None) -> None:
        """Takes the project's own mechanisms from a folder, in this process, from now on.

        Whoever begins a program says so, with `Project.mechanisms`; who does not gets those of the project around the
        current folder.
        """
        self._folder, self._said = folder, True

    @property
    def folder(self) -> Path | None:
        """The folder; none: the package's mechanisms alone."""
        if not self._said:
            self.use(find_mechanisms())
        return self._folder


CHOSEN = Chosen()
