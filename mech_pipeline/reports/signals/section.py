"""The report's section on signals: which of them announced the behaviour, at which rate of false alarms, and how early."""

from collections.abc import Mapping
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.reports.section import Section
from mech_pipeline.reports.signals import figures, queries
from mech_pipeline.reports.signals.published import PUBLISHED
from mech_pipeline.reports.subject import Study
from mech_pipeline.reports.wording import UNKNOWN, number, signal_name

Row = dict[str, str]


def signals(study: Study) -> Section:
    """Pictures of all signals at the claimed rate, a table of every target, and what others published."""
    found = queries.scores(study)
    title = "Which signals heard it coming"
    if found.is_empty():
        context: dict[str, Any] = {
            "claim": "",
            "nothing": _nothing(study),
            "tables": [],
            "pictures": [],
            "compared": [],
        }
        return Section("signals", title, "signals/section.html", context, empty=True)
    claim = float(found["claim"][0])
    at_claim = found.filter(pl.col("target") == claim).to_dicts()
    drawn, pictures = _drawn(study, at_claim, claim)
    context = {
        "claim": _claim(study, at_claim[0], claim),
        "nothing": "",
        "left_out": _left_out(at_claim[0]),
        "tables": [(f"{target:g}", [*map(_row, rows.to_dicts())]) for (target,), rows in _by_target(found)],
        "pictures": pictures,
        "compared": [*map(_published, PUBLISHED), *_own(study, found)],
    }
    return Section("signals", title, "signals/section.html", context, drawn)


def _nothing(study: Study) -> str:
    if study.experiment.signals.scored:
        return "Signals of this experiment are to be scored; not all runs are there yet."
    return "No signal of this experiment is scored as a precursor (its field `signals`)."


def _by_target(found: pl.DataFrame) -> list[tuple[tuple[Any, ...], pl.DataFrame]]:
    return sorted(found.group_by(["target"], maintain_order=True), key=lambda each: each[0][0])


def _drawn(study: Study, rows: list[dict[str, Any]], claim: float) -> tuple[dict[str, Figure], list[tuple[str, str]]]:
    from mech_pipeline.signals.registry import signals as known

    alarms, chosen = queries.alarms(study, claim), rows[0]
    unit = known()[chosen["signal"]].unit if chosen["signal"] in known() else ""
    drawn = {
        "signals_roc.png": figures.roc(rows, alarms),
        "signals_leads.png": figures.leads(rows, alarms),
        "signals_chosen.png": figures.chosen_courses(
            chosen["signal"], queries.courses(study, chosen["signal"], alarms), chosen, unit
        ),
    }
    captions = (
        "Every threshold of every signal, by runs that nobody had looked at. A negative run rings once, at any time in it; an "
        "event is announced by an alarm before it. Dots: thresholds that were locked on explored runs for the claimed rate.",
        "Left: from alarm to event, each announced event a dot. Right: alarms in negative runs, by arm.",
        "The signal that was chosen on explored runs, in every unseen run.",
    )
    return drawn, [*zip(drawn, captions, strict=True)]


def _claim(study: Study, row: Mapping[str, Any], claim: float) -> str:
    """One sentence on the one signal that the claim is made for."""
    event = signal_name(study.experiment.signals.event or study.experiment.formation[0].signal)
    verdict = "supported" if row["label"] == "SUPPORTED" else "not supported"
    early = f", {number(row['lead_share_median'], 2)} of its step ahead (median)" if row["announced"] else ""
    return (
        f"Chosen on explored runs: {_named(row)}. On unseen runs it announced {event} in {row['announced']} of "
        f"{row['events']}{early}, and rang in {row['false_alarms']} of {row['negatives']} negative runs: a rate of false "
        f"alarms below {claim:g} with such coverage is {verdict} ({row['label']})."
    )


def _named(row: Mapping[str, Any]) -> str:
    return row["signal"] + (" (a baseline)" if row["baseline"] else "")


def _left_out(row: Mapping[str, Any]) -> str:
    if not row["not_formed"] + row["formed_anyway"]:
        return ""
    return (
        f"Left out: {row['not_formed']} runs of event arms in which it did not form, {row['formed_anyway']} of negative arms in "
        "which it did."
    )


def _row(row: Mapping[str, Any]) -> Row:
    quartiles = [row[f"lead_share_{part}"] for part in ("lower", "median", "upper")]
    return {
        "signal": row["signal"] + (" (chosen)" if row["chosen"] else "") + (" (baseline)" if row["baseline"] else ""),
        "label": row["label"],
        "false": f"{row['false_alarms']} of {row['negatives']} [{row['rate_lower']:.2f}, {row['rate_upper']:.2f}]",
        "coverage": f"{row['announced']} of {row['events']} [{row['coverage_lower']:.2f}, {row['coverage_upper']:.2f}]",
        "lead": number(row["lead_median"]),
        "share": UNKNOWN if quartiles[1] is None else "{1:.2f} [{0:.2f}, {2:.2f}]".format(*quartiles),
        "equal": f"{row['auroc_equal_time']:.2f}",
        "auroc": f"{row['auroc']:.2f}",
        "precision": f"{row['average_precision']:.2f}",
        "abstained": str(row["abstained_events"] + row["abstained_negatives"]),
    }


def _published(row: tuple[str, str, str, str, str]) -> Row:
    return dict(zip(("who", "setting", "rate", "coverage", "lead"), row, strict=True)) | {"own": ""}


def _own(study: Study, found: pl.DataFrame) -> list[Row]:
    """The chosen signal, at every target."""
    return [
        {
            "who": f"this experiment: {row['signal']}, {row['label']}",
            "setting": f"{study.experiment.experiment}, {row['events']} events",
            "rate": f"{row['false_alarms'] / row['negatives']:.3f} of {row['negatives']} runs (target {row['target']:g})"
            if row["negatives"]
            else UNKNOWN,
            "coverage": f"{100 * row['announced'] / row['events']:.0f} %",
            "lead": UNKNOWN if row["lead_median"] is None else f"{row['lead_median']:,.0f} updates",
            "own": "own",
        }
        for row in found.filter("chosen").sort("target").to_dicts()
    ]
