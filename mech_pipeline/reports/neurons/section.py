"""The report's section on neurons: what made them, and whether they matter there."""

import json
from dataclasses import dataclass
from typing import Any

import polars as pl

from mech_pipeline.reports.neurons import queries
from mech_pipeline.reports.neurons.figures import neurons_over_windows
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study

FIGURE = "neurons.png"


@dataclass(frozen=True)
class NeuronPart:
    """The neurons of one run.

    Attributes:
        begin, step: the last window, whose neurons are listed.
        imbalance: the largest of any part and window, as a share of how far it moved.
        windows: one row per window and part.
    """

    run: str
    step: str
    begin: str
    imbalance: str
    windows: list[dict[str, str]]
    neurons: list[dict[str, Any]]


def neurons(study: Study) -> Section:
    """A figure of all runs, and the tables of each run."""
    found = queries.neuron_windows(study.connection, study.runs)
    runs = [run for run in study.runs if run in found["run"]]
    context = {"parts": [_part(study, run, found.filter(run=run)) for run in runs], "nothing": no_neurons(study)}
    drawn = {FIGURE: neurons_over_windows(found)} if runs else {}
    return Section("neurons", "Neurons: what made them", "neurons/section.html", context, drawn, empty=not runs)


def no_neurons(study: Study) -> str:
    """Why there is nothing to show."""
    if any(spec.neurons.windows for spec in study.specs):
        return "Neurons were asked for, but they have not been computed yet."
    return "This experiment does not ask what made its neurons (its field `neurons`)."


def _part(study: Study, run: str, windows: pl.DataFrame) -> NeuronPart:
    step = int(windows["step"].max())  # type: ignore[arg-type]
    last = windows.filter(step=step)
    neurons = queries.neuron_rows(study.connection, run, step)
    return NeuronPart(
        run,
        step=f"{step:,}",
        begin=f"{last['begin'][0]:,}",
        imbalance=f"{float(windows['imbalance'].max()):.1e}",  # type: ignore[arg-type]
        windows=[_window(row) for row in windows.iter_rows(named=True)],
        neurons=[_neuron(row) for row in neurons.iter_rows(named=True)],
    )


def _window(row: dict[str, Any]) -> dict[str, str]:
    measured = row["n_measured"]
    return {
        "window": f"{row['begin']:,} to {row['step']:,}",
        "part": row["part"],
        "effective": "" if row["middle"] is None else f"{row['middle']:.0f} ({row['low']:.0f} to {row['high']:.0f})",
        "least": "" if row["least"] is None else f"{row['least']:.1f}",
        "attributed": f"{row['attributed']:.4f}" if measured else "not measured",
        "matched": f"{row['matched']:.4f}" if measured else "not measured",
        "above": f"{row['n_above']} / {row['n_below']} of {measured}",
    }


def _token(text: str, share: float) -> dict[str, str]:
    return {"text": json.dumps(text, ensure_ascii=False), "share": f"{100 * share:.0f} %"}


def _neuron(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": f"L{row['layer']}N{row['neuron']} {row['part']}",
        "moved": f"{row['displacement']:.3f}",
        "effective": f"{row['effective_tokens']:.1f}",
        "tokens": [_token(each["text"], each["share"]) for each in row["tokens"] or []],
        "before": row["before"] or "",
        "text": row["text"] or "",
        "after": row["after"] or "",
        "attributed": f"{row['effect_attributed']:+.3f}",
        "matched": f"{row['effect_matched']:+.3f}",
        "interval": f"{row['effect_low']:+.3f} to {row['effect_high']:+.3f}",
    }
