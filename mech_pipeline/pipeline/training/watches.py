"""All that looks at a run while it trains, and may end it: its rule to stop, and the alarm that its experiment has locked."""

from collections.abc import Sequence

from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training.listening import Listening
from mech_pipeline.pipeline.training.watching import Watch
from mech_pipeline.progress import Emit
from mech_pipeline.training.update.optimizer import State


class Watches:
    """Some of them; perhaps none."""

    def __init__(self, each: Sequence[Watch | Listening]) -> None:
        self._each = each

    @classmethod
    def of(cls, run: OpenRun, emit: Emit) -> "Watches":
        """Those that a run has; `emit` receives what is heard."""
        found: tuple[Watch | Listening | None, ...] = (Watch.of(run), Listening.of(run, emit))
        return cls([watch for watch in found if watch is not None])

    @property
    def zoomed(self) -> bool:
        """Whether an alarm has asked for more states."""
        return any(isinstance(watch, Listening) and watch.zoomed for watch in self._each)

    @property
    def ended(self) -> bool:
        """Whether the run is to make no further update."""
        return any(watch.stop is not None for watch in self._each)

    def over(self, until: int) -> bool:
        """Looks at kept states up to a step; whether they say that the run has ended."""
        said = [watch.over(until) for watch in self._each]  # all of them look
        return any(said)

    def sees(self, state: State) -> None:
        """Looks at a state that was just reached."""
        for watch in self._each:
            watch.sees(state)

    def write(self, emit: Emit) -> None:
        """The rows that end the run's plan; what is kept is published before."""
        for watch in self._each:
            if watch.stop is not None:
                watch.write(emit)
