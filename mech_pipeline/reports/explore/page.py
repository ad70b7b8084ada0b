"""The page to explore as one file: data, descriptions of pictures, Vega with all that it needs, and a script of ours.

Nothing is loaded from anywhere, and the policy allows nothing: scripts are named by their hashes, expressions of Vega are
interpreted (no `eval`), and whatever comes from a corpus is put into the page as text.
"""

import base64
import hashlib
import json
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any

import vl_convert
from markupsafe import Markup

from mech_pipeline.reports.explore import charts, data
from mech_pipeline.reports.page import environment
from mech_pipeline.reports.subject import Study
from mech_pipeline.reports.wording import signal_unit
from mech_pipeline.user_cache import kept, kept_folder

_VEGA_LITE = "6.4"
"""The version that Altair 6.3 writes."""


def explore_page(study: Study) -> str:
    """The page of an experiment, about 1.5 MB; a second, and another where Vega has to be put together.

    Of ledgers, the first mechanism's is shown.
    """
    told = _told(study)
    scripts = [_vega(), files("mech_pipeline.reports.explore").joinpath("explore.js").read_text(encoding="utf-8")]
    return (
        environment()
        .get_template("explore/explore.html")
        .render(
            experiment=study.experiment,
            data=Markup(json.dumps(told, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")),
            scripts=[Markup(script) for script in scripts],
            policy=" ".join(f"'sha256-{_hash(script)}'" for script in scripts),
            subject=study.ledgers[0] if study.ledgers else None,
        )
    )


def _told(study: Study) -> dict[str, Any]:
    curves, heads = data.curve_rows(study), data.head_rows(study)
    units = {name: signal_unit(name) for name in study.experiment.mechanisms}
    units = {name: unit for name, unit in units.items() if any(row["mechanism"] == name for row in curves)}
    told: dict[str, Any] = {"training": None, "atlas": charts.atlas(heads) if heads else None, "windows": None}
    components: charts.Rows = []
    unit = ""
    for subject in study.ledgers[:1]:
        components, unit = data.component_rows(study, subject), subject.unit
        windows = data.windows(study, subject)
        names = sorted({name for rows in windows["examples"].values() for name, _ in rows})
        told |= {
            "windows": windows,
            "examples": data.examples(study, subject, names),
            "tokens": data.token_values(study, subject, names),
            "unit": unit,
        }
    if units:
        told["training"] = charts.training(curves, units, components, unit)
    return told


@cache
def _vega() -> str:
    """Vega with all that it needs, 0.8 MB, put together once for a version of the library: a second."""
    return kept(kept_folder() / f"vega-{_VEGA_LITE}-{version('vl-convert-python')}.js", _put_together)


def _put_together() -> str:
    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", _VEGA_LITE))


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
