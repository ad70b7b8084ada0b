"""What a worker prints goes to the files that the UI shows, and nowhere else.

Dagster's own manager also mirrors it to the terminal, with four helper processes for each Dagster run: they print
tracebacks at Ctrl-C, outlive a killed worker while they hold its terminal, and take longer to start than a short stage runs.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from dagster._core.storage.compute_log_manager import CapturedLogContext
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._serdes import ConfigurableClassData


class PrintedToFiles(LocalComputeLogManager):
    """`LocalComputeLogManager` without its mirror."""

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "PrintedToFiles":
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def capture_logs(self, log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        with ExitStack() as streams:
            for stream, ending in ((sys.stdout, "out"), (sys.stderr, "err")):
                streams.enter_context(_into(stream, Path(self.get_captured_local_path(log_key, ending))))
            yield CapturedLogContext(log_key)
        Path(self.complete_artifact_path(log_key)).touch()


@contextmanager
def _into(stream: IO[str], path: Path) -> Iterator[None]:
    """Lets a stream, and what libraries write to its descriptor, go into a file while the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        stream.flush()
        number, kept = stream.fileno(), os.dup(stream.fileno())
        os.dup2(file.fileno(), number)
        try:
            yield
        finally:
            stream.flush()
            os.dup2(kept, number)
            os.close(kept)
