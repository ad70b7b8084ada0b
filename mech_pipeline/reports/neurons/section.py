"""The report's section on neurons: what made them, and whether they matter there."""

import json
from collections.abc import Sequence
from typing import Any

import duckdb
import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.frames import frame
from mech_pipeline.reports.drawing import PALETTE, figure_png, finish_axes, headline, legend_inside, panels
from mech_pipeline.spec.experiment import Experiment

_SHOWN = 20
_TOKENS = 6


def neuron_sections(
    connection: duckdb.DuckDBPyConnection, experiment: Experiment, drawn: dict[str, bytes]
) -> list[dict[str, Any]]:
    """What the template shows of neurons: a figure of all runs, and a table of each run's last window."""
    runs = [spec.run for spec in experiment.runs()]
    found = neuron_windows(connection, runs)
    if found.is_empty():
        return []
    drawn["neurons.png"] = figure_png(neurons_over_windows(found))
    return [_section(connection, run, found.filter(run=run)) for run in runs if run in found["run"]]


def no_neurons(experiment: Experiment) -> str:
    """Why there is nothing to show."""
    if any(spec.neurons.windows for spec in experiment.runs()):
        return "Neurons were asked for, but they have not been computed yet."
    return "This experiment does not ask what made its neurons (its field `neurons`)."


def neuron_windows(connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> pl.DataFrame:
    """One row per run, window and part: quartiles of effective tokens, number of neurons, effects measured and significant."""
    return frame(
        connection,
        """select run, step, any_value(begin) as begin, part, count(*) as n_neurons,
            quantile_cont(effective_tokens, 0.25) as low, median(effective_tokens) as middle,
            quantile_cont(effective_tokens, 0.75) as high, min(effective_tokens) as least,
            count(effect_low) as n_measured, count(*) filter (effect_low > 0) as n_above,
            count(*) filter (effect_high < 0) as n_below, avg(effect_attributed) as attributed, avg(effect_matched) as matched,
            max(abs(imbalance)) as imbalance
        from neurons where run = any($runs::varchar[])
        group by run, step, part order by list_position($runs::varchar[], run), step, part""",
        runs=list(runs),
    )


def neuron_rows(connection: duckdb.DuckDBPyConnection, run: str, step: int, count: int = _SHOWN) -> pl.DataFrame:
    """The parts whose attributed tokens suffer most beyond matched ones, with tokens and the position that did most."""
    return frame(
        connection,
        """with chosen as (
            select * from neurons where run = $run and step = $step and effect_low is not null
            order by effect_attributed - effect_matched desc limit $count)
        select chosen.layer, chosen.neuron, chosen.part, displacement, effective_tokens,
            effect_attributed, effect_matched, effect_low, effect_high,
            (select list({'text': t.text, 'share': t.share} order by t.place) from neuron_tokens t
                where t.run = $run and t.step = $step and t.place < $tokens
                and (t.layer, t.neuron, t.part) = (chosen.layer, chosen.neuron, chosen.part)) as tokens,
            c.before, c.text, c.after
        from chosen left join neuron_contexts c
            on c.run = $run and c.step = $step and c.place = 0
            and (c.layer, c.neuron, c.part) = (chosen.layer, chosen.neuron, chosen.part)
        order by effect_attributed - effect_matched desc""",
        run=run,
        step=step,
        count=count,
        tokens=_TOKENS,
    )


def neurons_over_windows(found: pl.DataFrame) -> Figure:
    """Two panels: how many tokens made the in-weights (median, quartiles), and what they matter for.

    Args:
        found: `neuron_windows`.
    """
    figure, axes = panels(2, columns=2, row_inches=2.9)
    runs = found["run"].unique(maintain_order=True).to_list()
    for place, run in enumerate(runs):
        line, colour = found.filter(run=run, part="in").sort("step"), PALETTE[place % len(PALETTE)]
        axes[0].plot(line["step"], line["middle"], color=colour, marker="o", markersize=3, label=run)
        axes[0].fill_between(line["step"], line["low"], line["high"], color=colour, alpha=0.2, linewidth=0)
        axes[0].plot(line["step"], line["least"], color=colour, linewidth=0.8, linestyle=":")
        axes[1].plot(
            line["step"], line["attributed"], color=colour, marker="o", markersize=3, label=f"{run}: attributed"
        )
        axes[1].plot(line["step"], line["matched"], color=colour, linestyle="--", label=f"{run}: matched")
    axes[0].set_yscale("log")
    finish_axes(
        axes[0], "end of the window (updates)", "effective tokens", "What moved in-weights: median, quartiles, least"
    )
    finish_axes(
        axes[1],
        "end of the window (updates)",
        "loss increase (nats a position)",
        "Neuron at its mean: its tokens, others",
    )
    for each in axes:
        legend_inside(each)
    n = int(found["n_neurons"].max() or 0)  # type: ignore[arg-type]
    headline(figure, f"Neurons: n = {n} a run, {', '.join(runs)}")
    return figure


def _section(connection: duckdb.DuckDBPyConnection, run: str, windows: pl.DataFrame) -> dict[str, Any]:
    step = int(windows["step"].max())  # type: ignore[arg-type]
    last = windows.filter(step=step)
    return {
        "run": run,
        "step": f"{step:,}",
        "begin": f"{last['begin'][0]:,}",
        "imbalance": f"{float(windows['imbalance'].max()):.1e}",  # type: ignore[arg-type]
        "windows": [_window(row) for row in windows.iter_rows(named=True)],
        "neurons": [_neuron(row) for row in neuron_rows(connection, run, step).iter_rows(named=True)],
    }


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
