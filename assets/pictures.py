"""Figures in the UI. Short texts it shows as they are, and the web server of `mech ui` draws what they name when it is asked.

So curves are those of the moment in which somebody looks, also while a run trains, and no event carries a picture. A web
server of Dagster's own does not know these pages; `experiment_report` carries its figures with it.
"""

import base64
from typing import Any
from urllib.parse import quote

import dagster as dg


def curves_of(experiment: str) -> dict[str, Any]:
    """Loss and formation of all runs of an experiment, side by side; a click gives a page that draws itself again."""
    name = quote(experiment)
    return {"curves": dg.MetadataValue.md(f"[![loss and formation of all runs](/curves/{name}.png)](/curves/{name})")}


def report_link(experiment: str) -> dict[str, Any]:
    """Where the report opens: on the UI's own port, also through a tunnel."""
    name = quote(experiment)
    return {
        "report": dg.MetadataValue.md(
            f"[open the report](/reports/{name}.html) · [explore](/reports/{name}.explore.html)"
        )
    }


def carried(png: bytes, says: str = "figure") -> dg.MarkdownMetadataValue:
    """A picture inside the event itself, which the UI shows after a click.

    Args:
        says: what it shows, for who cannot see it.
    """
    return dg.MetadataValue.md(f"![{says}](data:image/png;base64,{base64.b64encode(png).decode()})")
