"""The report's section on atoms of applied updates: groups of examples that moved the weights alike, and which go on."""

from typing import Any

import duckdb
import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.frames import frame
from mech_pipeline.reports.drawing import MUTED, finish_axes, headline, line_look, panels
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study

_SHOWN, _EXAMPLES, _TEXT = 12, 3, 80


def atoms(study: Study) -> Section:
    """A figure and a table of the longest tracks, run by run."""
    looked = frame(
        study.connection,
        "select run, count(*) as windows from atom_windows where run = any($runs::varchar[]) group by run",
        runs=list(study.runs),
    )
    runs = [run for run in study.runs if run in looked["run"]]
    figures, parts = {}, []
    for run in runs:
        tracks = atom_tracks(study.connection, run)
        name = f"atoms_{run}.png"
        figures[name] = _figure(run, tracks, _courses(study.connection, run))
        going_on = tracks.filter(pl.col("windows") > 1)
        rows = [_row(row) for row in going_on.head(_SHOWN).to_dicts()]
        parts.append({"run": run, "figure": name, "n": tracks.height, "kept": going_on.height, "tracks": rows})
    context = {"parts": parts, "nothing": _nothing(study)}
    return Section(
        "atoms", "Which examples moved the weights alike", "discovery/atoms.html", context, figures, not runs
    )


def atom_tracks(connection: duckdb.DuckDBPyConnection, run: str) -> pl.DataFrame:
    """One row per track, longest first, with kinds and first examples of its most coherent window, and the pool's shares."""
    return frame(
        connection,
        f"""with seen as (select distinct example_id from batches where run = $run),
        pool as (select kind, count(*) / sum(count(*)) over () as base from seen join examples using (example_id) group by kind),
        peak as (
            select t.*, a.atom from atom_tracks t join atoms a on a.run = t.run and a.track = t.track and a.step = t.peak
            where t.run = $run),
        member as (
            select track, place, e.kind, e.text from peak
            join atom_examples m on m.run = $run and m.atom = peak.atom join examples e using (example_id)),
        shares as (
            select track, kind, count(*) / sum(count(*)) over (partition by track) as share from member group by track, kind),
        kinds as (
            select track, string_agg(kind || ' ' || (100 * share)::int || ' %' || coalesce(
                ' (of all ' || (100 * base)::int || ' %)', ''), ', ' order by share desc, kind) as kinds
            from shares left join pool using (kind) group by track),
        shown as (
            select track, list(left(text, {_TEXT}) order by place) as examples from member
            where place < {_EXAMPLES} group by track)
        select peak.*, kinds, examples from peak join kinds using (track) join shown using (track)
        order by windows desc, coherence desc, track""",
        run=run,
    )


def _courses(connection: duckdb.DuckDBPyConnection, run: str) -> pl.DataFrame:
    return frame(
        connection,
        "select track, step, coherence, by_chance_most from atoms where run = $run order by track, step",
        run=run,
    )


def _figure(run: str, tracks: pl.DataFrame, courses: pl.DataFrame) -> Figure:
    """Coherence of every atom over training; the longest tracks in colour, the largest of random groups dashed."""
    figure, (axes,) = panels(1, columns=1, row_inches=2.9)
    axes.scatter(courses["step"], courses["coherence"], s=5, color=MUTED, alpha=0.5)
    chance = courses.group_by("step").agg(pl.col("by_chance_most").max()).sort("step")
    axes.plot(chance["step"], chance["by_chance_most"], color=MUTED, linestyle="--")
    for place, track in enumerate(tracks["track"].to_list()[:6]):
        colour, style = line_look(place)
        line = courses.filter(track=track)
        axes.plot(line["step"], line["coherence"], color=colour, linestyle=style, marker=".")
    finish_axes(axes, "step (updates)", "mean cosine of raw gradients", "Coherence of atoms")
    headline(figure, f"Atoms: n = {courses.height} in {tracks.height} tracks, {run}")
    return figure


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "track": row["track"],
        "when": f"{row['birth']:,} to {row['death']:,}, most at {row['peak']:,}",
        "windows": row["windows"],
        "coherence": f"{row['coherence']:.3f} ({row['by_chance']:.3f})",
        "kinds": row["kinds"],
        "components": ", ".join(row["components"].split(", ")[:5]),
        "examples": row["examples"],
    }


def _nothing(study: Study) -> str:
    """Why there is nothing to show."""
    if any(spec.discovery.atoms for spec in study.specs):
        return "Atoms of applied updates were asked for, and have not been looked for yet."
    return "This experiment does not look for atoms of applied updates (its field `discovery.atoms`)."
