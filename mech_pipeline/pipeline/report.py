"""The report of an experiment: rendered from the store, kept as blobs, found by the table `reports`."""

from dataclasses import dataclass

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.checkpoints import provenance_columns
from mech_pipeline.project import report_name
from mech_pipeline.reports.page import build_report
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.store.currency import combined_version, stored_versions
from mech_pipeline.store.reading import connect, reading
from mech_pipeline.store.store import Store

CODE_VERSION = "1"
HTML = "report.html"
_READ = (
    *("mechanism_values", "head_scores", "ledger_balance", "influence", "reliability", "formation"),
    *("retrainings", "lds", "circuits", "neurons"),
)


@dataclass(frozen=True)
class StoredReport:
    """A rendered report.

    Attributes:
        figures: PNG by name.
    """

    path: str
    figures: dict[str, bytes]
    data_version: str


def wanted(store: Store, experiment: Experiment) -> str:
    """What the report would be made from now. `ledger_balance` stands for the ledger: their versions are the same."""
    versions = [
        combined_version(stored_versions(store, table, spec.run).values())
        for spec in experiment.runs()
        for table in _READ
    ]
    return fingerprint("report", CODE_VERSION, experiment, versions)


def is_current(store: Store, experiment: Experiment) -> bool:
    """Whether the stored report shows what the store holds."""
    with reading(store.root, ["reports"]) as connection:
        rows = connection.execute(
            "select input_fingerprint, uri from reports where experiment = ? and artifact = ?",
            [experiment.experiment, HTML],
        ).fetchall()
    return (
        bool(rows)
        and rows[0][0] == wanted(store, experiment)
        and store.files.info(report_name(experiment.experiment)) is not None
    )


def make_report(store: Store, experiment: Experiment) -> StoredReport:
    """Renders and stores the report.

    Raises:
        MechError: none of the experiment's runs is in the store.
    """
    made_from = wanted(store, experiment)
    with connect(store.root) as connection:
        known = connection.execute("select 1 from runs where experiment = ?", [experiment.experiment]).fetchall()
        if not known:
            raise MechError(f"no run of experiment {experiment.experiment!r} is in the store", "`mech run` it first")
        report = build_report(connection, experiment)
    contents = {HTML: report.html.encode()} | {
        f"{name.removesuffix('.png')}.png": png for name, png in report.figures.items()
    }
    blobs = {
        name: store.put_blob(f"reports/{experiment.experiment}", name, content) for name, content in contents.items()
    }
    version = blobs[HTML].sha256
    store.write(
        "reports",
        {
            "experiment": [experiment.experiment] * len(blobs),
            "artifact": list(blobs),
            "uri": [b.uri for b in blobs.values()],
            "bytes": [b.bytes for b in blobs.values()],
            "sha256": [b.sha256 for b in blobs.values()],
            **provenance_columns(len(blobs), made_from, version),
        },
        replace={"experiment": [experiment.experiment]},
        code_version=CODE_VERSION,
    )
    store.files.write(report_name(experiment.experiment), contents[HTML])
    return StoredReport(store.files.url(report_name(experiment.experiment)), report.figures, version)
