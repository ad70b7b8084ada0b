"""What we did to the data, and what happened: arms that choose, held against each other.

Words keep two things apart: influence predicts what treating examples will do, the ledger explains what happened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from mech_pipeline.causal.arms import Doses, doses, pairs, recipes
from mech_pipeline.causal.comparing import LEVEL
from mech_pipeline.causal.matching import BALANCED
from mech_pipeline.causal.survival import Formed
from mech_pipeline.reports.causes import figures, queries
from mech_pipeline.reports.causes.words import done_by
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study
from mech_pipeline.reports.wording import UNKNOWN, counted, interval, number, percent, signal_name, signal_unit
from mech_pipeline.spec.analysis import Event

_PANELS = {"delete": "examples left out", "duplicate": "examples shown twice"}
Row = dict[str, str]


@dataclass(frozen=True)
class EventPart:
    """One watched value, compared over arms.

    Attributes:
        claims: sentences.
        pictures: (figure, caption).
    """

    name: str
    claims: list[str]
    power: str
    arms: list[Row]
    comparisons: list[Row]
    pictures: list[tuple[str, str]]


def causes(study: Study) -> Section:
    """Arms that choose examples: what was done, when each formed, shifts, doses, predictions, balance."""
    parts, drawn = list[EventPart](), dict[str, Figure]()
    for event in study.experiment.formation:
        compared = _in_order(study, queries.comparisons(study, event.signal))
        if compared.height:
            part, pictures = _event_part(study, event, compared)
            parts.append(part)
            drawn |= pictures
    predicted, scatter = _predictions(study)
    context = {
        "parts": parts,
        "predicted": predicted,
        "stopped": _stopped(study),
        "balances": [_balance_row(row) for row in _balances(study).iter_rows(named=True)],
        "nothing": _nothing(study),
    }
    title = "What we did to the data, and what happened"
    return Section("causes", title, "causes/section.html", context, drawn | scatter, empty=not parts)


def _nothing(study: Study) -> str:
    if pairs(study.experiment):
        return "Arms of this experiment choose examples, but nothing has been compared yet."
    return (
        "Nothing: no arm of this experiment chooses examples by what was measured. An arm with `choose` leaves some out, or "
        "shows them twice, and is compared with the baseline and with matched examples."
    )


def _in_order(study: Study, compared: pl.DataFrame) -> pl.DataFrame:
    """Comparisons in the order of the file."""
    order = pl.DataFrame(
        {"arm": [p.arm for p in pairs(study.experiment)], "reference": _references(study)},
        schema={"arm": pl.String, "reference": pl.String},
    )
    return order.join(compared, on=["arm", "reference"], how="inner", maintain_order="left")


def _references(study: Study) -> list[str]:
    return [pair.reference for pair in pairs(study.experiment)]


def _event_part(study: Study, event: Event, compared: pl.DataFrame) -> tuple[EventPart, dict[str, Figure]]:
    runs, name = queries.formed(study, event.signal), signal_name(event.signal)
    file = event.signal.replace(":", "_")
    threshold = (
        f"{name} ≥ {event.threshold:g} {signal_unit(event.signal)}, {event.sustain} evaluations in a row{event.since}"
    )
    told = compared.filter(pl.col("pairs") > 0)
    drawn, pictures = dict[str, Figure](), list[tuple[str, str]]()

    def show(figure: str, made: Figure, caption: str) -> None:
        drawn[f"causes_{figure}.{file}.png"] = made
        pictures.append((f"causes_{figure}.{file}.png", caption))

    if any(runs.values()):
        caption = f"Share of runs that have formed ({threshold}), Kaplan–Meier. In brackets: how many did, of how many."
        show("when", figures.when_formed(runs, _groups(study), threshold), f"{caption} Black: the arm held against.")
    if told.height:
        show("shifts", figures.shifts(told, runs, threshold), _shifts_caption(told))
    if families := [each for each in doses(study.experiment) if all(runs[arm] for arm in each.arms)]:
        words = [_trend_words(study, event.signal, each) for each in families]
        caption = f"Formation step by the share of examples that is treated: {'; '.join(words)}."
        show("doses", figures.dose_response(families, runs, words), caption)
    rows = [_comparison_row(row) for row in compared.iter_rows(named=True)]
    part = EventPart(name, _claims(compared, name), _power(compared), _arm_rows(study, event, runs), rows, pictures)
    return part, drawn


def _groups(study: Study) -> list[figures.Group]:
    """Arms by what they do to the data; kinds of which there are few share a panel."""
    chosen = recipes(study.experiment)
    against = {pair.arm: pair.reference for pair in reversed(pairs(study.experiment))}
    groups: dict[tuple[str, str], list[str]] = {}
    for arm in (name for name in study.experiment.arms if name in against):
        what = _PANELS.get(chosen[arm].do, "others") if arm in chosen else "others"
        base = chosen[arm].of if arm in chosen else against[arm]
        groups.setdefault((what, base), []).append(arm)
    return [figures.Group(what, base, tuple(arms)) for (what, base), arms in groups.items()]


def _shifts_caption(told: pl.DataFrame) -> str:
    n = sorted(told["pairs"].to_list())
    return (
        f"Shift of the formation step, arm minus reference, over seeds that share initialisation and order (n = "
        f"{n[0]} to {n[-1]} pairs). Dots: seeds. Diamond and line: Hodges–Lehmann shift, 95 % "
        "interval. Coloured: p < 0.05 after Holm over all of them (orange later, blue earlier). Shaded: within 5 % of the "
        "reference's step. A bound is a pair of which one run did not form: its shift is at least that."
    )


def _trend_words(study: Study, mechanism: str, family: Doses) -> str:
    measures = queries.measures(study, mechanism).filter(pl.col("subject").str.starts_with(f"{family.what}: "))
    found = {row["metric"]: row for row in measures.iter_rows(named=True)}
    p = found["page_p"]["value"] if "page_p" in found else None
    if p is None:
        return f"{family.what}: too few seeds for a trend test"
    which = "later" if found["page"]["value"] > found["page_expected"]["value"] else "earlier"
    return f"{family.what}: the more, the {which}? Page's p = {number(p, 2)} (n = {found['page_p']['n']} seeds)"


def _claims(compared: pl.DataFrame, name: str) -> list[str]:
    """What passed Holm, a sentence each."""
    claims = []
    for row in compared.filter(pl.col("p_holm") < LEVEL).iter_rows(named=True):
        share = f" ({percent(abs(row['relative']))} of it)" if row["relative"] is not None else ""
        bound = "at least " if row["bounds"] else ""
        claims.append(
            f"{row['arm']}: {name} forms {bound}{abs(row['shift']):g} updates {'later' if row['shift'] > 0 else 'earlier'} than in "
            f"{row['reference']}{share}; {row['pairs']} pairs, p = {number(row['p_holm'], 2)} after Holm."
        )
    return claims


def _power(compared: pl.DataFrame) -> str:
    """What could have been shown at all."""
    told = compared.filter(pl.col("pairs") > 0)
    if told.is_empty():
        return "No pair of runs says anything: none formed, or none is there yet."
    hopeless = told.filter(pl.col("smallest_p_holm") >= LEVEL)
    sentence = f"{compared.height} comparisons, Holm over all of them."
    if hopeless.height == told.height:
        most = max(told["pairs"].to_list())
        return (
            f"{sentence} With {most} pairs no shift, however large, could have come below p = 0.05: nothing can be claimed, "
            "more seeds are needed."
        )
    if smallest := sorted(told["detectable"].drop_nulls().to_list()):
        sentence += (
            f" Shifts from {number(smallest[0])} to {number(smallest[-1])} updates would have been shown with 80 %."
        )
    if hopeless.height:
        names = ", ".join(f"{row['arm']} − {row['reference']}" for row in hopeless.iter_rows(named=True))
        sentence += f" Too few pairs to show anything, an interval aside: {names}."
    return sentence


def _arm_rows(study: Study, event: Event, runs: Mapping[str, Sequence[Formed]]) -> list[Row]:
    chosen = recipes(study.experiment)
    rows = {row["arm"]: row for row in queries.arms(study, event.signal).iter_rows(named=True)}
    return [
        _arm_row(arm, done_by(study.experiment.arms[arm], chosen.get(arm)), rows[arm]) for arm in runs if arm in rows
    ]


def _arm_row(arm: str, done: str, row: Mapping[str, Any]) -> Row:
    ends = [UNKNOWN if row[name] is None else f"{row[name]:,}" for name in ("median_lower", "median_upper")]
    return {
        "arm": arm,
        "done": done,
        "chosen": UNKNOWN if row["chosen"] is None else f"{row['chosen']:,.0f}",
        "formed": f"{row['formed']} of {row['runs']}",
        "median": UNKNOWN if row["median"] is None else f"{row['median']:,} [{ends[0]}, {ends[1]}]",
    }


def _comparison_row(row: Mapping[str, Any]) -> Row:
    shift = row["shift"]
    ends = "" if row["lower"] is None else f" [{row['lower']:+g}, {row['upper']:+g}]"
    return {
        "arm": row["arm"],
        "reference": row["reference"],
        "pairs": f"{row['pairs']}" + (f", {row['bounds']} bounds" if row["bounds"] else ""),
        "shift": UNKNOWN if shift is None else f"{shift:+g}{ends}",
        "relative": UNKNOWN if row["relative"] is None else f"{100 * row['relative']:+.1f} %",
        "p": number(row["p"], 2),
        "p_holm": number(row["p_holm"], 2),
        "smallest": number(row["smallest_p_holm"], 2),
        "detectable": number(row["detectable"]),
        "log_rank": number(row["p_log_rank"], 2),
    }


def _predictions(study: Study) -> tuple[list[tuple[str, str]], dict[str, Figure]]:
    """(figure, caption) of each mechanism whose influence predicted, and the figures."""
    shown, drawn = list[tuple[str, str]](), dict[str, Figure]()
    for (mechanism,), rows in queries.predictions(study).group_by(["mechanism"], maintain_order=True):
        unit, name = signal_unit(str(mechanism)), f"causes_predicted.{mechanism}.png"
        measures = queries.measures(study, str(mechanism)).filter(pl.col("subject").str.starts_with("predictions"))
        found = {
            row["metric"]: UNKNOWN if row["value"] is None else interval(row["value"], row["lower"], row["upper"])
            for row in measures.iter_rows(named=True)
        }
        said = f"rank correlation {found.get('rank_correlation', UNKNOWN)}, slope {found.get('slope', UNKNOWN)}"
        drawn[name] = figures.predicted_against_measured(rows, list(study.experiment.arms), unit, said)
        caption = (
            f"{mechanism}: what influence had predicted that each run's treatment does at the target step of its baseline, and "
            f"what it did there ({unit}); beside it the shift of formation. {said[0].upper()}{said[1:]}, with 95 % intervals over "
            "seeds. Treatments of some percent are outside of the linear range: order may hold, size does not."
        )
        shown.append((name, caption))
    return shown, drawn


def _stopped(study: Study) -> list[str]:
    """Runs of which the treatment was not measured where it was predicted, a sentence for each mechanism and method."""
    return [
        f"{row['mechanism']}, {row['subject']}: {counted(row['n'], 'run')} stopped before the target step of their baseline "
        "(`training.stop`): no change was measured there, and the table `predictions` has no row. What is left out so is most "
        "of all arms that form early; their shifts are compared all the same."
        for row in queries.stopped_before(study).iter_rows(named=True)
    ]


def _balances(study: Study) -> pl.DataFrame:
    return queries.balances(study.connection, study.runs)


def _balance_row(row: Mapping[str, Any]) -> Row:
    return {
        "arm": row["arm"],
        "characteristic": row["characteristic"],
        "before": f"{row['before']:+.2f}",
        "after": f"{row['difference']:+.2f}",
        "largest": f"{row['largest']:.2f}" + ("" if row["largest"] <= BALANCED else ": not balanced"),
        "runs": str(row["runs"]),
    }
