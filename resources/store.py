"""Resources: the store, and the folder of experiment files."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from mech_pipeline.data.corpora import Document, corpus_sha256, read_corpus
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.run_row import stored_spec
from mech_pipeline.project import Project
from mech_pipeline.resolve import Resolved, read_experiment
from mech_pipeline.spec.experiment_files import file_of
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


class StoreResource(dg.ConfigurableResource):
    """Where everything is kept.

    Attributes:
        home: folder that relative names in the specs of runs begin at; empty: the current one.
    """

    root: str
    home: str = ""

    def open(self) -> Store:
        """The store at that root; its commits name the Dagster run that this resource serves."""
        run = self.get_resource_context().run
        return Store(self.root, dagster_run=run.run_id if run else "")

    def run_spec(self, run: str) -> RunSpec:
        """The resolved spec of a run, as `run_spec` wrote it.

        Raises:
            MechError: the run was never registered.
        """
        return self.located(stored_spec(self.open(), run))

    def located(self, spec: RunSpec) -> RunSpec:
        """A spec that was read from the store, with names of files that begin at the project's folder."""
        return spec.at(Path(self.home).absolute())

    @property
    def local_folder(self) -> Path:
        """Where files that people open lie on this machine."""
        return Project(Path(self.home).absolute(), self.root).local_folder


class ExperimentsResource(dg.ConfigurableResource):
    """The YAML files that researchers edit.

    Attributes:
        home: folder that relative names in them begin at; empty: the current one.
    """

    folder: str
    home: str = ""

    def read(self, path: Path) -> Resolved:
        """An experiment file, with what it names looked up."""
        return read_experiment(path, Path(self.home).absolute())

    def load(self, file: str | None, experiment: str) -> Resolved:
        """An experiment from a file, or by name from the folder.

        Raises:
            MechError: there is no such experiment.
        """
        if file:
            return self.read(Path(file))
        return self.read(file_of(experiment, Path(self.folder)))

    def run_spec(self, file: str | None, run: str) -> RunSpec:
        """One run of an experiment, by run id."""
        experiment = self.load(file, run.split(".")[0])
        for spec in experiment.runs():
            if spec.run == run:
                return spec
        known = ", ".join(spec.run for spec in experiment.runs())
        raise MechError(f"experiment {experiment.experiment!r} has no run {run!r}", f"its runs are {known}")


def documents_of(spec: RunSpec) -> tuple[Sequence[Document], str]:
    """The documents of a run's corpus and their SHA-256."""
    documents = read_corpus(spec.corpus)
    return documents, corpus_sha256(documents)
