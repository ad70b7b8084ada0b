"""What the web server draws when a page asks for it: an experiment's curves, from the store as it is at that moment."""

import html
from pathlib import Path

from mech_pipeline.mechanisms.chosen import CHOSEN
from mech_pipeline.store.files.open import open_files
from mech_pipeline.store.layout import check_readable
from mech_pipeline.store.reading.shared import reading

REFRESH_SECONDS = 10


def curves_png(root: str, experiment: str, mechanisms: Path | None) -> bytes | None:
    """The curves of all runs of an experiment as PNG; none while there are none.

    Args:
        mechanisms: folder of the project's own mechanisms, whose units are shown.
    """
    if check_readable(open_files(root)) is None:
        return None
    from mech_pipeline.reports.drawing import figure_png
    from mech_pipeline.reports.live import TABLES, live_figure  # late: matplotlib and PyTorch take seconds to load

    CHOSEN.use(mechanisms)
    with reading(root, TABLES) as connection:
        figure = live_figure(connection, experiment)
    return None if figure is None else figure_png(figure)


def curves_page(experiment: str) -> str:
    """A page of these curves that draws itself again and again."""
    name = html.escape(experiment, quote=True)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="{REFRESH_SECONDS}">'
        f"<title>{name}: curves</title><h1>{name}</h1>"
        f'<p><a href="/reports/{name}.html">report</a> · drawn again every {REFRESH_SECONDS} seconds</p>'
        f'<img src="/curves/{name}.png" alt="loss and formation of all runs of {name}" style="max-width:100%">'
    )
