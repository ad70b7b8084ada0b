"""The figures of a report as files for papers: SVG with text that stays text, and PDF."""

import io
from pathlib import Path

import duckdb
import matplotlib
from matplotlib.figure import Figure

from mech_pipeline.reports.first.page import curve
from mech_pipeline.reports.page import SECTIONS, drawn
from mech_pipeline.reports.subject import Study
from mech_pipeline.spec.experiment import Experiment

_LOOK = {"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "mech_pipeline"}
_UNDATED = {"svg": {"Date": None, "Creator": None}, "pdf": {"CreationDate": None, "Producer": None, "Creator": None}}


def save_figures(connection: duckdb.DuckDBPyConnection, experiment: Experiment, folder: Path) -> list[Path]:
    """Writes every figure of the report as SVG and as PDF; the same store gives the same bytes.

    Args:
        connection: from `store.reading.connect`.
        folder: is made if it is not there.
    """
    study = Study(connection, experiment, tuple(experiment.runs()))
    figures = curve(study) | drawn([section(study) for section in SECTIONS])
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        for kind in _UNDATED:
            path = folder / f"{name.removesuffix('.png')}.{kind}"
            path.write_bytes(_rendered(figure, kind))
            written.append(path)
    return written


def _rendered(figure: Figure, kind: str) -> bytes:
    content = io.BytesIO()
    with matplotlib.rc_context(_LOOK):  # type: ignore[arg-type]  # any of its own keys
        figure.savefig(content, format=kind, metadata=_UNDATED[kind])
    return content.getvalue()
