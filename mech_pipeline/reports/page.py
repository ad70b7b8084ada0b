"""The report of one experiment: one HTML file that needs nothing else, and its figures as PNG.

Made from the store alone, without dates or paths, so that the same store gives the same bytes. What is missing is
said in a sentence where it would stand. A new section is a function and a template in the folder of its topic, and an
entry in `SECTIONS`.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import duckdb
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from mech_pipeline.data.example_tokens import TokenReader, no_tokens
from mech_pipeline.reports.answer import answer
from mech_pipeline.reports.causes.section import causes
from mech_pipeline.reports.circuits.section import circuits
from mech_pipeline.reports.contrast.section import contrast
from mech_pipeline.reports.discovery.atoms import atoms
from mech_pipeline.reports.discovery.section import discovery
from mech_pipeline.reports.drawing import figure_png
from mech_pipeline.reports.first.page import CURVE, cards, curve
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
from mech_pipeline.reports.setup import setup
from mech_pipeline.reports.signals.section import signals
from mech_pipeline.reports.subject import Study
from mech_pipeline.spec.experiment import Experiment

SECTIONS: tuple[Callable[[Study], Section], ...] = (
    results,
    curves,
    causes,
    signals,
    contrast,
    ledger,
    influence,
    comparison,
    predictions,
    heads,
    circuits,
    neurons,
    discovery,
    atoms,
    meaning,
    setup,
    provenance,
)


@dataclass(frozen=True)
class Report:
    """The page, and each of its figures by file name."""

    html: str
    figures: dict[str, bytes]


def build_report(
    connection: duckdb.DuckDBPyConnection,
    experiment: Experiment,
    tokens: TokenReader = no_tokens,
    parameters: Callable[[str], int | None] = lambda run: None,
) -> Report:
    """Queries, draws and writes the report of an experiment. Seconds, mostly for the ledger's sums.

    Args:
        connection: from `store.reading.connect`.
        experiment: names the runs; rows of other runs are not read.
        tokens, parameters: see `Study`.
    """
    study = Study(connection, experiment, tuple(experiment.runs()), tokens, parameters)
    sections = [section(study) for section in SECTIONS]
    figures = {name: figure_png(each) for name, each in (curve(study) | drawn(sections)).items()}
    templates = environment()
    shown = [
        {"anchor": each.anchor, "title": each.title, "empty": each.empty, "html": _html(templates, each, figures)}
        for each in sorted(sections, key=lambda each: each.empty)
    ]
    html = templates.get_template("report.html").render(
        experiment=experiment,
        answer=answer(study),
        cards=cards(study),
        curve=CURVE if CURVE in figures else "",
        images=_inline(figures),
        sections=shown,
    )
    return Report(html, figures)


def drawn(sections: Sequence[Section]) -> dict[str, Figure]:
    """All figures of some sections by file name."""
    return {name: figure for section in sections for name, figure in section.figures.items()}


def environment() -> Environment:
    """Where templates lie, and how they are filled: everything is escaped, and nothing may be missing."""
    return Environment(
        loader=PackageLoader("mech_pipeline.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _html(templates: Environment, section: Section, figures: Mapping[str, bytes]) -> Markup:
    """What stands below the section's heading; its template has escaped what came from outside."""
    images = _inline({name: figures[name] for name in section.figures})
    return Markup(templates.get_template(section.template).render(section.context, images=images))


def _inline(figures: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(png).decode() for name, png in figures.items()}
