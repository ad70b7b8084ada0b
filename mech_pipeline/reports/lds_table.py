"""How well influence predicts retraining, as the first page shows it: read from finished stores, written once.

`docs/lds.json` holds one row per preset, estimator and share of examples left out. README.md shows it as a table between
invisible marks, <!--lds--> … <!--/lds-->, and `tests/reports/test_lds_table.py` compares the two. To measure a preset's rows
again, in place of those that are there:

    mech run experiments/induction_lds.yaml
    python -m mech_pipeline.reports.lds_table store induction_lds.baseline.s0 --preset "as the demo"

Shares of which too few removals were retrained to judge by are left out.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from mech_pipeline.attribution.retraining.effects import removal_effects
from mech_pipeline.attribution.retraining.lds import (
    Score,
    calibration,
    linear_datamodeling_score,
    score_difference,
    spread,
)
from mech_pipeline.frames import frame
from mech_pipeline.statistics.verdict import FEWEST_REMOVALS
from mech_pipeline.store.reading import connect

FILE = Path("docs", "lds.json")
PAGE = "README.md"
BEGIN, END = "<!--lds-->", "<!--/lds-->"
EXACT, MEAN, PEER = "adjoint", "adjoint_mean", "MAGIC of bergson 2.5.1"
COLUMNS = {
    EXACT: "exact influence",
    MEAN: "its mean over 6 trainings",
    PEER: PEER,
    "": "best of the cheaper estimators",
}
"""Of the table, by estimator; the empty one stands for all others."""
Row = dict[str, Any]


def measured(connection: duckdb.DuckDBPyConnection, run: str, preset: str) -> list[Row]:
    """Rows of one run, by share and estimator: its random removals, and where the exact influence is there too, the difference.

    Args:
        connection: sees the tables `influence`, `removals` and `retrainings`.
        preset: name under which the page shows them.
    """
    keys = frame(
        connection,
        """select distinct step, mechanism, fraction, method from retrainings
        join (select distinct run, step, mechanism, method from influence) using (run, step, mechanism)
        where run = $run and removal like 'random-%' order by all""",
        run=run,
    ).rows()
    found = []
    for step, mechanism, share, method in keys:
        predicted, changes = _effects(connection, (run, step, mechanism), method, share)
        row = _row(predicted, changes)
        if method != EXACT and (step, mechanism, share, EXACT) in keys:
            exact, _ = _effects(connection, (run, step, mechanism), EXACT, share)
            row["beyond_exact"] = _score(score_difference(predicted, exact, changes))
        found.append({"preset": preset, "run": run, "step": step, "share": share, "method": method, **row})
    return found


def _effects(
    connection: duckdb.DuckDBPyConnection, target: tuple[str, int, str], method: str, share: float
) -> tuple[np.ndarray, np.ndarray]:
    run, step, mechanism = target
    names = frame(
        connection,
        """select distinct removal from retrainings where run = $run and step = $step and mechanism = $mechanism
        and fraction = $share and removal like 'random-%' and change is not null""",
        run=run,
        step=step,
        mechanism=mechanism,
        share=share,
    )["removal"].to_list()
    names.sort(key=lambda name: int(name.rpartition("-")[2]))  # as the stage has them, so that intervals are the same
    effects = removal_effects(connection, run, step, mechanism, method, names)
    return effects["predicted"].to_numpy(), effects["change"].to_numpy()


def _row(predicted: np.ndarray, changes: np.ndarray) -> Row:
    line = calibration(predicted, changes)
    numbers = {
        "slope": line.slope if line else None,
        "offset": line.offset if line else None,
        "predicted_spread": spread(predicted),
        "measured_spread": spread(changes),
    }
    rounded = {name: None if value is None else round(value, 3) for name, value in numbers.items()}
    return {"n": len(changes), "lds": _score(linear_datamodeling_score(predicted, changes)), **rounded}


def _score(score: Score | None) -> list[float | None] | None:
    """[value, lower, upper] to three digits."""
    if score is None:
        return None
    return [None if value is None else round(value, 3) for value in (score.value, score.lower, score.upper)]


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line per preset and share, a column per estimator; the best of several cheaper ones alone.

    >>> print(table([{"preset": "p", "share": 0.05, "method": "adjoint", "n": 40, "lds": [0.9, 0.8, 0.95]}]))
    | trained as | left out | exact influence |
    |---|---|---|
    | p | 5 % (40 sets) | 0.90 [0.80, 0.95] |
    """
    presets = list(dict.fromkeys(row["preset"] for row in rows))
    lines = sorted({(presets.index(row["preset"]), row["share"], row["n"]) for row in rows})
    shown = [name for name in COLUMNS if any(_column(row) == name for row in rows)]
    text = [
        "| trained as | left out | " + " | ".join(COLUMNS[name] for name in shown) + " |",
        "|---" * (2 + len(shown)) + "|",
    ]
    for preset, share, n in lines:
        here = [row for row in rows if (presets.index(row["preset"]), row["share"], row["n"]) == (preset, share, n)]
        cells = [_cell([row for row in here if _column(row) == name]) for name in shown]
        text.append(f"| {presets[preset]} | {100 * share:g} % ({n} sets) | " + " | ".join(cells) + " |")
    return "\n".join(text)


def _column(row: Row) -> str:
    return row["method"] if row["method"] in COLUMNS else ""


def _cell(rows: Sequence[Row]) -> str:
    known = [row["lds"] for row in rows if row["lds"] is not None]
    if not known:
        return ""
    value, lower, upper = max(known, key=lambda score: score[0])
    between = "" if lower is None else f" [{lower:.2f}, {upper:.2f}]"
    return f"{value:.2f}{between}".replace("-", "−")


def merged(known: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Rows with new ones in the place of those of the same preset, estimator, share and number of removals.

    Shares may come from several stores; rows of other removals stay beside the estimators that were measured on them.
    """

    def names(row: Row) -> tuple[Any, ...]:
        return row["preset"], row["method"], row["share"], row["n"]

    again = {names(row) for row in new}
    return [row for row in known if names(row) not in again] + list(new)


def filled(page: str, rows: Sequence[Row]) -> str:
    """The page with the table between its marks.

    Raises:
        ValueError: the page has no marks.
    """
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{after}"


def _main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/lds.json and the table that shows it.")
    parser.add_argument("store", help="a store in which the run was retrained")
    parser.add_argument("run", help="its name")
    parser.add_argument("--preset", required=True, help="name of its training on the page")
    parser.add_argument("--root", type=Path, default=Path(), help="the repository")
    asked = parser.parse_args()
    with connect(asked.store) as connection:
        new = measured(connection, asked.run, asked.preset)
    path, page = asked.root / FILE, asked.root / PAGE
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    rows = merged(known, [row for row in new if row["n"] >= FEWEST_REMOVALS])
    path.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n", encoding="utf-8")
    page.write_text(filled(page.read_text(encoding="utf-8"), rows), encoding="utf-8")


if __name__ == "__main__":
    _main()
