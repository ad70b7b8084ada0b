"""The report of an experiment: rendered from the store, kept as blobs, found by the table `reports`."""

from dataclasses import dataclass
from functools import partial

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import Block, Cell, combined_version, pending_cells, stored_versions, write
from mech_pipeline.pipeline.checkpoints import stored_parameter_count
from mech_pipeline.project import REPORT_INDEX, explore_name, report_name
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store

CODE_VERSION = "4"
HTML, EXPLORE = "report.html", "explore.html"
_READ = (
    *("mechanism_values", "head_scores", "ledger_balance", "influence", "reliability", "formation"),
    *("retrainings", "lds", "circuits", "neurons"),
)
_COMPARED = ("arms", "comparisons", "predictions", "causal_measures")


@dataclass(frozen=True)
class StoredReport:
    """A rendered report.

    Attributes:
        answer: the paragraph that it begins with, plain text.
        figures: PNG by name.
    """

    path: str
    answer: str
    figures: dict[str, bytes]
    data_version: str


def wanted(store: Store, experiment: Experiment) -> dict[Cell, str]:
    """What the report would be made from now. `ledger_balance` stands for the ledger: their versions are the same."""
    versions = [
        combined_version(stored_versions(store, table, spec.run).values())
        for spec in experiment.runs()
        for table in (*_READ, *(name for name, asked in _found_by(spec) if asked))
    ]
    if any(arm.choose is not None or arm.intervene for arm in experiment.arms.values()):
        versions += [
            combined_version(stored_versions(store, name, experiment.experiment).values()) for name in _COMPARED
        ]
    made_from = fingerprint("report", CODE_VERSION, experiment, versions)
    return {Cell("reports", experiment.experiment): made_from}


def _found_by(spec: RunSpec) -> tuple[tuple[str, bool], ...]:
    """Tables of discovery, and whether a run asks for them."""
    return ("discovery_tokens", spec.discovery.tokens > 0), ("atom_windows", spec.discovery.atoms > 0)


def pending(store: Store, experiment: Experiment) -> list[Cell]:
    """The report, unless the stored one shows what the store holds and lies where people look for it."""
    cells = wanted(store, experiment)
    there = store.files.info(report_name(experiment.experiment)) is not None
    return pending_cells(store, cells) if there else list(cells)


def make_report(store: Store, experiment: Experiment) -> StoredReport:
    """Renders and stores the report.

    Raises:
        MechError: none of the experiment's runs is in the store.
    """
    from mech_pipeline.pipeline.tokens.example_tokens import stored_tokens
    from mech_pipeline.reports.answer import answer_text
    from mech_pipeline.reports.explore.page import explore_page
    from mech_pipeline.reports.page import build_report  # late: matplotlib takes a second to load
    from mech_pipeline.reports.subject import Study

    ((cell, made_from),) = wanted(store, experiment).items()
    with connect(store.root) as connection:  # whose cursors share its views: a report asks some eighty questions
        known = connection.execute("select 1 from runs where experiment = ?", [experiment.experiment]).fetchall()
        if not known:
            raise MechError(f"no run of experiment {experiment.experiment!r} is in the store", "`mech run` it first")
        answer = answer_text(connection, experiment)
        tokens = stored_tokens(store)
        report = build_report(connection, experiment, tokens, partial(stored_parameter_count, store))
        explored = explore_page(Study(connection, experiment, tuple(experiment.runs()), tokens))
    contents = {HTML: report.html.encode(), EXPLORE: explored.encode()} | {
        f"{name.removesuffix('.png')}.png": png for name, png in report.figures.items()
    }
    blobs = {
        name: store.put_blob(f"reports/{experiment.experiment}", name, content) for name, content in contents.items()
    }
    version = blobs[HTML].sha256
    columns = {"artifact": list(blobs)} | {
        name: [getattr(blob, name) for blob in blobs.values()] for name in ("uri", "bytes", "sha256")
    }
    write(store, [Block(cell, columns, made_from, version)], CODE_VERSION)
    store.files.write(report_name(experiment.experiment), contents[HTML])
    store.files.write(explore_name(experiment.experiment), contents[EXPLORE])
    _write_index(store, experiment.experiment)
    return StoredReport(store.files.url(report_name(experiment.experiment)), answer, report.figures, version)


def _write_index(store: Store, experiment: str) -> None:
    """The page over all experiments; a report of that name is left alone."""
    from mech_pipeline.reports.index import index_page

    if report_name(experiment) != REPORT_INDEX:
        with store.reading("reports", "runs", "formation") as connection:
            page = index_page(connection)
        store.files.write(REPORT_INDEX, page.encode())
