"""The report's section on what formed that nobody named."""

import json
from typing import Any

from matplotlib.figure import Figure

from mech_pipeline.discovery.formed import LOCKED
from mech_pipeline.reports.discovery import queries
from mech_pipeline.reports.discovery.figures import clusters_of, needs_of
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study

_SHOWN = 24
"""Cards of a run; `mech discover` lists all."""


def discovery(study: Study) -> Section:
    """A figure and a card for each cluster, run by run."""
    found = queries.found_clusters(study.connection, study.runs)
    runs = [run for run in study.runs if run in found["run"]]
    by_needs = {spec.run for spec in study.specs if spec.discovery.by == "needs"}
    drawn = {f"discovery_{run}.png": _figure(study, run, run in by_needs) for run in runs}
    parts = [
        _part(run, name, found.filter(run=run).to_dicts(), run in by_needs)
        for run, name in zip(runs, drawn, strict=True)
    ]
    context = {"parts": parts, "nothing": no_discoveries(study), "locked": f"{LOCKED:g}"}
    return Section(
        "discovery", "What formed that nobody named", "discovery/section.html", context, drawn, empty=not runs
    )


def no_discoveries(study: Study) -> str:
    """Why there is nothing to show."""
    if any(spec.discovery.tokens for spec in study.specs):
        return "Discoveries were asked for; no cluster of tokens was found, or they have not been looked for yet."
    return "This experiment does not look for what nobody named (its field `discovery`)."


def _figure(study: Study, run: str, by_needs: bool) -> Figure:
    if by_needs:
        return needs_of(run, queries.courses_of(study.connection, run))
    return clusters_of(run, queries.cluster_curves(study.connection, run), queries.token_map(study.connection, run))


def _part(run: str, figure: str, rows: list[dict[str, Any]], by_needs: bool) -> dict[str, Any]:
    return {
        "run": run,
        "figure": figure,
        "by_needs": by_needs,
        "n": sum(row["is_discovery"] for row in rows),
        "of": len(rows),
        "cards": [*map(_card, rows[:_SHOWN])],
    }


def _card(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"{row['cluster']}{'' if row['is_discovery'] else ' (no discovery)'}",
        "tokens": f"{row['tokens']}: {row['kinds']}",
        "begins": f"{row['step']:,} ({row['lower']:,} to {row['upper']:,})",
        "half": f"{row['half_step']:,} ({row['half_lower']:,} to {row['half_upper']:,})",
        "looking": f"{row['looking']:.2f} ({row['looking_low']:.2f} to {row['looking_high']:.2f})",
        "drop": f"{row['drop']:.2f}",
        "hidden": "yes" if row["hidden"] else "no",
        "components": row["components"],
        "examples": [
            {"before": each["before"][-30:], "text": json.dumps(each["text"], ensure_ascii=False)}
            for each in row["examples"]
        ],
    }
