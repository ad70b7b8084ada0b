"""An experiment without Dagster: `python bare_run.py EXPERIMENT.yaml STORE` calls the stages one after another.

What `dagster_overhead.py` compares `mech run` with: the same computations, the same rows; no partitions, events,
checks, progress or processes.
"""

import sys
import warnings
from pathlib import Path

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline.analysis import analysis, circuits, formation, neurons
from mech_pipeline.pipeline.grid import kept_steps
from mech_pipeline.pipeline.influence import influence
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.report import make_report
from mech_pipeline.pipeline.retraining import lds, retraining
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.run_row import describe_run, mark_status
from mech_pipeline.pipeline.tokens.tokens import prepare_tokens
from mech_pipeline.pipeline.training import training
from mech_pipeline.pipeline.training.batches import write_batches
from mech_pipeline.spec.experiment import load_experiment
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.care.maintain import compact_runs
from mech_pipeline.store.reading.warehouse import write_warehouse
from mech_pipeline.store.store import Store
from mech_pipeline.training.allocator import keep_freed_memory

warnings.filterwarnings("ignore")


def compute(store: Store, spec: RunSpec, documents: list, sha256: str) -> None:
    """Every stage of one run."""
    describe_run(store, spec, sha256)
    prepare_tokens(store, spec, documents)
    training.train(store, spec)
    write_batches(store, spec)
    mark_status(store, spec, "complete")
    run = OpenRun(store, spec)
    analysis.analyse(run, analysis.OUTPUTS, kept_steps(store, spec))
    circuits.compute_circuits(run, circuits.circuit_steps(run))
    neurons.compute_neurons(run, sorted(neurons.windows(run)))
    if spec.accounts:
        ledger.compute_ledger(run, [step for step in run.planned if step > 0])
    formation.compute_formation(store, spec)
    if spec.influence.mechanisms:
        influence.compute_influence(run, influence.target_steps(run))
    if (step := retraining.retraining_step(run)) is not None and lds.pending(run, step):
        retraining.compute_retrainings(run, step)
        lds.compute_lds(run, step)
    compact_runs(store, [spec.run])


def main(file: Path, root: Path) -> None:
    """The whole experiment."""
    keep_freed_memory()
    experiment, store = load_experiment(file), Store(root)
    read: dict[str, tuple[list, str]] = {}
    for spec in experiment.runs():
        key = spec.corpus.model_dump_json()
        if key not in read:
            documents = read_corpus(spec.corpus)
            read[key] = documents, corpus_sha256(documents)
        compute(store, spec, *read[key])
    make_report(store, experiment)
    write_warehouse(root, root)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
