"""An experiment without Dagster: `python bare_run.py EXPERIMENT.yaml STORE` calls the stages one after another.

What `dagster_overhead.py` compares `mech run` with: the same computations, the same rows; no partitions, events,
checks, progress or processes.
"""

import sys
import warnings
from pathlib import Path

from mech_pipeline.pipeline.alone import compute_all
from mech_pipeline.resolve import corpus_hashes, read_experiment
from mech_pipeline.store.reading.warehouse import write_warehouse
from mech_pipeline.store.store import Store
from mech_pipeline.training.allocator import keep_freed_memory

warnings.filterwarnings("ignore")


def main(file: Path, root: Path) -> None:
    """The whole experiment."""
    keep_freed_memory()
    experiment, store = read_experiment(file), Store(root)
    compute_all(store, experiment.runs(), corpus_hashes(experiment.runs()), experiment)
    write_warehouse(root, root)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
