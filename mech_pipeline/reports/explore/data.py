"""What the page to explore is given: curves, heads, and one ledger by window, component and example.

A window is what lies between two checkpoints of the ledger. What an example did in it includes what its gradient did
later, through momentum: momentum is given back to the examples that caused it, so net sums over a run are its change.
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from mech_pipeline.data.example_tokens import ExampleTokens
from mech_pipeline.frames import frame
from mech_pipeline.reports.formation.queries import mechanism_curves
from mech_pipeline.reports.heads.queries import head_scores
from mech_pipeline.reports.ledger.queries import COMPONENT_GROUP
from mech_pipeline.reports.subject import Study, Subject

MOST, LEAST = 8, 4
"""Examples of a window: with the largest totals, with the smallest."""
_DIGITS = 4


def curve_rows(study: Study) -> list[dict[str, Any]]:
    """Every evaluation of every mechanism: run, arm, seed, mechanism, step, value."""
    found = mechanism_curves(study.connection, study.runs)
    return found.with_columns(pl.col("value").round_sig_figs(_DIGITS)).to_dicts()


def head_rows(study: Study) -> list[dict[str, Any]]:
    """Every head score of the first run that has any: step, place (of the checkpoint), layer, head, detector, value."""
    for run in study.runs:
        found = head_scores(study.connection, run)
        if found.height:
            place = found["step"].rank("dense") - 1
            return found.with_columns(pl.col("value").round_sig_figs(_DIGITS), place=place).to_dicts()
    return []


def component_rows(study: Study, subject: Subject) -> list[dict[str, Any]]:
    """By window and component: net, and gross (the sum of the sizes of what single examples did)."""
    found = frame(
        study.connection,
        f"""with each as (
            select l.step, case when l.term = 'example' then {COMPONENT_GROUP} else replace(l.term, '_', ' ') end as component,
                l.example_id, sum(l.value::double + l.value_later::double) as total
            from ledger l where l.run = $run and l.mechanism = $mechanism and l.term <> 'momentum' group by all)
        select step, component, sum(total) as net, sum(abs(total)) as gross from each group by all order by all""",
        run=subject.run,
        mechanism=subject.mechanism,
    )
    return found.with_columns(pl.col("net", "gross").round_sig_figs(_DIGITS)).to_dicts()


def windows(study: Study, subject: Subject) -> dict[str, Any]:
    """By step: the window's true change, and the examples that moved most either way with what each did."""
    found = frame(
        study.connection,
        """with each as (
            select step, example_id, sum(value::double + value_later::double) as total from ledger
            where run = $run and mechanism = $mechanism and term = 'example' group by all),
        ranked as (select *, row_number() over (partition by step order by total desc, example_id) as down,
            row_number() over (partition by step order by total, example_id) as up from each)
        select step, example_id, total from ranked where (down <= $most and total > 0) or (up <= $least and total < 0)
        order by step, total desc, example_id""",
        run=subject.run,
        mechanism=subject.mechanism,
        most=MOST,
        least=LEAST,
    )
    changes = frame(
        study.connection,
        "select step, change from ledger_balance where run = $run and mechanism = $mechanism order by step",
        run=subject.run,
        mechanism=subject.mechanism,
    )
    rows: dict[str, list[list[Any]]] = {str(step): [] for step in changes["step"]}
    for step, example, total in found.iter_rows():
        rows.setdefault(str(step), []).append([example, _short(total)])
    return {"changes": {str(step): _short(change) for step, change in changes.iter_rows()}, "examples": rows}


def examples(study: Study, subject: Subject, names: Sequence[str]) -> dict[str, Any]:
    """By id: where an example comes from, its text in pieces, and every update that saw it with what it did there."""
    found = frame(
        study.connection,
        "select example_id, kind, source, document, line, text from examples where example_id = any($names::varchar[])",
        names=list(names),
    )
    history = frame(
        study.connection,
        """select example_id, update_step, sum(value::double + value_later::double) as total from ledger
        where run = $run and mechanism = $mechanism and term = 'example' and example_id = any($names::varchar[])
        group by all order by all""",
        run=subject.run,
        mechanism=subject.mechanism,
        names=list(names),
    )
    told = {
        row["example_id"]: {
            "where": f"{row['source']}: {row['document']}, line {row['line']}",
            "kind": row["kind"],
            "pieces": [row["text"] or ""],
            "seen": [],
        }
        for row in found.iter_rows(named=True)
    }
    for name, update, total in history.iter_rows():
        if name in told:
            told[name]["seen"].append([update, _short(total)])
    tokens = study.tokens(subject.run, names)
    if tokens is not None:
        _in_pieces(told, names, tokens)
    return told


def token_values(study: Study, subject: Subject, names: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """By step and example: what each of its tokens did, where the ledger was asked for tokens; else nothing."""
    found = frame(
        study.connection,
        """with one as (select min(meaning) as meaning from ledger_tokens where run = $run and mechanism = $mechanism)
        select step, example_id, list(value order by token_position) as tokens from (
            select step, example_id, token_position, sum(value::double) as value from ledger_tokens join one using (meaning)
            where run = $run and mechanism = $mechanism and example_id = any($names::varchar[]) group by all)
        group by all order by all""",
        run=subject.run,
        mechanism=subject.mechanism,
        names=list(names),
    )
    by_step: dict[str, dict[str, list[float]]] = {}
    for step, name, values in found.iter_rows():
        by_step.setdefault(str(step), {})[name] = [_short(value) for value in values]
    return by_step


def _in_pieces(told: dict[str, Any], names: Sequence[str], tokens: ExampleTokens) -> None:
    for name, ids in zip(names, tokens.ids, strict=True):
        if name in told:
            told[name]["pieces"] = [tokens.pieces[token] for token in ids]


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
