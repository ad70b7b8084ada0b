"""The report of one experiment: one HTML file that needs nothing else, and its figures as PNG.

Made from the store alone, without dates or paths, so that the same store gives the same bytes. What is missing is
said in a sentence where it would stand. A new section is a function and a template in the folder of its topic, and an
entry in `SECTIONS`.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass

import duckdb
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mech_pipeline.reports.answer import answer
from mech_pipeline.reports.circuits.section import circuits
from mech_pipeline.reports.formation.section import curves, results
from mech_pipeline.reports.heads.section import heads
from mech_pipeline.reports.influence.comparison import comparison
from mech_pipeline.reports.influence.section import influence
from mech_pipeline.reports.ledger.section import ledger
from mech_pipeline.reports.meaning import meaning
from mech_pipeline.reports.neurons.section import neurons
from mech_pipeline.reports.provenance import provenance
from mech_pipeline.reports.retraining.section import predictions
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study
from mech_pipeline.spec.experiment import Experiment

SECTIONS: tuple[Callable[[Study], Section], ...] = (
    results,
    curves,
    heads,
    circuits,
    neurons,
    ledger,
    influence,
    comparison,
    predictions,
    meaning,
    provenance,
)


@dataclass(frozen=True)
class Report:
    """The page, and each of its figures by file name."""

    html: str
    figures: dict[str, bytes]


def build_report(connection: duckdb.DuckDBPyConnection, experiment: Experiment) -> Report:
    """Queries, draws and writes the report of an experiment. Seconds, mostly for the ledger's sums.

    Args:
        connection: from `store.reading.connect`.
        experiment: names the runs; rows of other runs are not read.
    """
    study = Study(connection, experiment, tuple(experiment.runs()))
    sections = [section(study) for section in SECTIONS]
    environment = _environment()
    shown = [{"anchor": each.anchor, "title": each.title, "html": _html(environment, each)} for each in sections]
    html = environment.get_template("report.html").render(experiment=experiment, answer=answer(study), sections=shown)
    return Report(html, {name: png for section in sections for name, png in section.figures.items()})


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("mech_pipeline.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _html(environment: Environment, section: Section) -> Markup:
    """What stands below the section's heading; its template has escaped what came from outside."""
    images = {name: base64.b64encode(png).decode() for name, png in section.figures.items()}
    return Markup(environment.get_template(section.template).render(section.context, images=images))
