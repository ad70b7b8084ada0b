"""The demo's numbers as the documentation shows them: read from a finished store, written once, shown everywhere.

`docs/numbers.json` holds one text per number. A page shows it between invisible marks,

    <!--n:copy_advantage-->2.92 ± 0.22<!--/n-->

and `tests/reports/test_demo_numbers.py` compares every such place with the file. To write file and pages again after
`make demo` took SECONDS:

    python -m mech_pipeline.reports.demo_numbers store --seconds SECONDS
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

import duckdb
from scipy import stats

from mech_pipeline.frames import frame
from mech_pipeline.statistics.intervals import mean_sd
from mech_pipeline.store.reading import connect

EXPERIMENT = "induction"
MECHANISM = "induction_copy_advantage"
DETECTOR = "prefix_matching"
FILE = Path("docs", "numbers.json")
PAGES = ("README.md", "docs/concepts.md", "docs/limits.md", "docs/method.md")
_MARK = re.compile(r"<!--n:(\w+)-->(.*?)<!--/n-->", flags=re.S)


def numbers(root: str, seconds: float) -> dict[str, str]:
    """Every number by name, as a text with its sign, digits and spread; units stand in the pages.

    Means are over seeds of the arm `baseline`, ± is the sample standard deviation. Ledger and influence are of seed 0.

    Args:
        root: a store in which the demo is finished.
        seconds: how long `make demo` took from an empty store; no table knows it.
    """
    with connect(root) as connection:
        return {
            **_formation(connection, "copy", MECHANISM),
            **_formation(connection, "head", f"best_head:{DETECTOR}"),
            **_ends(connection),
            **_ledger(connection),
            **_influence(connection),
            **_proof(connection),
            "seconds": f"{seconds:.0f} s",
            "minutes": f"{seconds / 60:.0f}",
        }


def marked(page: str) -> list[tuple[str, str]]:
    """The numbers that a page shows: name and text, in order.

    >>> marked("It took <!--n:seconds-->264 s<!--/n--> here.")
    [('seconds', '264 s')]
    """
    return _MARK.findall(page)


def filled(page: str, known: dict[str, str]) -> str:
    """The page with the known numbers in its places.

    >>> filled("It took <!--n:seconds-->9 s<!--/n--> here.", {"seconds": "264 s"})
    'It took <!--n:seconds-->264 s<!--/n--> here.'

    Raises:
        KeyError: the page names a number that is not known.
    """
    return _MARK.sub(lambda match: f"<!--n:{match[1]}-->{known[match[1]]}<!--/n-->", page)


def _formation(connection: duckdb.DuckDBPyConnection, name: str, signal: str) -> dict[str, str]:
    formed = _rows(
        connection,
        """select step, lower from formation join runs using (run)
        where experiment = $experiment and arm = 'baseline' and formation.mechanism = $signal order by seed""",
        signal=signal,
    )
    controls = _rows(
        connection,
        """select arm, step, lower from formation join runs using (run)
        where experiment = $experiment and arm <> 'baseline' and formation.mechanism = $signal order by arm""",
        signal=signal,
    )
    for arm, step, _ in controls:
        assert step is None, f"arm {arm} formed: it is no control, and the pages' sentences are wrong"
    steps = [step for step, _ in formed if step is not None]
    return {
        f"{name}_formed": f"{len(steps)} of {len(formed)}",
        f"{name}_steps": ", ".join("censored" if step is None else str(step) for step, _ in formed),
        f"{name}_step": _mean([float(step) for step in steps], 0),
        **{f"{name}_{arm}_censored": str(until) for arm, _, until in controls},
    }


def _ends(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Values at the last checkpoint."""
    sql = """with signals as (
            select run, step, value, 'copy' as signal from mechanism_values where mechanism = $mechanism
            union all select run, step, max(value), 'head' from head_scores where detector = $detector group by run, step)
        select arg_max(value, step) from signals join runs using (run)
        where experiment = $experiment and arm = $arm and signal = $signal group by seed order by seed"""
    found = {}
    for signal, name in (("copy", "copy_advantage"), ("head", "prefix_matching")):
        for arm in ("baseline", "control", "shuffled"):
            values = [
                value
                for (value,) in _rows(connection, sql, arm=arm, signal=signal, mechanism=MECHANISM, detector=DETECTOR)
            ]
            digits = 2 if arm == "baseline" else 3
            found[name if arm == "baseline" else f"{name}_{arm}"] = _mean(values, digits)
    return found


def _ledger(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    ((explained, change, update_error, example_error, windows),) = _rows(
        connection,
        """select sum(explained), sum(change), max(update_error), max(example_error), count(*)
        from ledger_balance join runs using (run) where experiment = $experiment and ledger_balance.mechanism = $mechanism""",
        mechanism=MECHANISM,
    )
    ((later, momentum),) = _rows(
        connection,
        """select sum(value_later::double), sum(value::double) filter (term = 'momentum')
        from ledger join runs using (run) where experiment = $experiment and ledger.mechanism = $mechanism""",
        mechanism=MECHANISM,
    )
    return {
        "ledger_explained": f"{explained:+.7f}",
        "ledger_change": f"{change:+.7f}",
        "ledger_imbalance": _small(abs(explained - change) / abs(change)),
        "ledger_windows": str(windows),
        "update_error": _small(update_error),
        "example_error": _small(example_error),
        "later": f"{later:.6f}",
        "momentum": f"{momentum:.6f}",
    }


def _influence(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Influence on the mechanism at the one target step, by example, and its reliability measures."""
    rows = _rows(
        connection,
        """with target as (select run, max(step) as step from influence join runs using (run)
            where experiment = $experiment and influence.mechanism = $mechanism and method = 'adjoint' group by run),
        ledgers as (select example_id, sum(value::double + value_later::double) as ledger from ledger join target using (run)
            where mechanism = $mechanism and term = 'example' and update_step < target.step group by 1)
        select sum(value::double) as total, any_value(kind), any_value(ledger)
        from influence join target using (run, step) join examples using (example_id) left join ledgers using (example_id)
        where mechanism = $mechanism and method = 'adjoint' group by example_id order by total desc, example_id""",
        mechanism=MECHANISM,
    )
    size = max(1, round(0.05 * len(rows)))
    measures = dict(
        _rows(
            connection,
            """select metric, value from reliability join runs using (run)
            where experiment = $experiment and mechanism = $mechanism and method = 'adjoint' and update_step = -1""",
            mechanism=MECHANISM,
        )
    )
    both = [(total, ledger) for total, _, ledger in rows if ledger is not None]
    return {
        "tiled_top": _percent(_share_tiled(rows[:size])),
        "tiled_bottom": _percent(_share_tiled(rows[-size:])),
        "tiled_all": _percent(_share_tiled(rows)),
        "influenced_examples": f"{len(rows):,}",
        "ledger_influence_correlation": f"{stats.spearmanr(both).statistic:.2f}",
        "metasmoothness": f"{measures['metasmoothness']:.2f}",
        "metasmoothness_since": f"{measures['metasmoothness_since']:.0f}",
        "adjoint_growth": f"{measures['adjoint_growth']:.0f}",
        "horizon_step": f"{measures['horizon_step']:.0f}",
        "influence_sum": f"{measures['influence_sum']:.4f}",
        "reliable": f"{measures['reliable']:.0f}",
    }


def _proof(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Seed 0 trained again without examples: predicted by the exact influence, and what happened."""
    rows = _rows(
        connection,
        """select metric, value, lower, upper, n from lds join runs using (run)
        where experiment = $experiment and mechanism = $mechanism and method = 'adjoint'""",
        mechanism=MECHANISM,
    )
    found = {metric: value for metric, value, *_ in rows}
    ((score, lower, upper, n),) = [row[1:] for row in rows if row[0] == "lds"]
    return {
        "top_predicted": _signed(found["predicted_difference"]),
        "top_happened": _signed(found["query_loss_difference"]),
        "top_z": _signed(found["query_loss_z"], 1),
        "matched_predicted": _signed(found["matched_predicted"]),
        "matched_happened": _signed(found["matched_difference"]),
        "random_predicted": f"{_signed(found['predicted_mean'])} ± {found['predicted_spread']:.2f}",
        "random_happened": f"{_signed(found['measured_mean'])} ± {found['measured_spread']:.2f}",
        "random_sets": str(n),
        "demo_lds": f"{score:.2f} [{lower:.2f}, {upper:.2f}]".replace("-", "−"),
    }


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, **values: object) -> list[tuple]:
    parameters = {"experiment": EXPERIMENT, **values}
    return frame(connection, sql, **parameters).rows()


def _share_tiled(rows: Sequence[tuple]) -> float:
    return sum(kind == "tiled" for _, kind, _ in rows) / len(rows)


def _mean(values: Sequence[float], digits: int) -> str:
    """Mean ± sample standard deviation; one value stands alone, with a real minus sign."""
    mean, sd = mean_sd(values)
    assert mean is not None, "nothing was measured: is the demo finished?"
    text = f"{mean:.{digits}f}" if sd is None else f"{mean:.{digits}f} ± {sd:.{digits}f}"
    return text.replace("-", "−")


def _signed(value: float, digits: int = 2) -> str:
    """With its sign, a real minus sign.

    >>> _signed(-1.234), _signed(0.5)
    ('−1.23', '+0.50')
    """
    return f"{value:+.{digits}f}".replace("-", "−")


def _small(value: float) -> str:
    """Two digits and a power of ten.

    >>> _small(9.07e-7)
    '9.1e-7'
    """
    return re.sub(r"e-0?(\d+)", r"e-\1", f"{value:.1e}")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/numbers.json and the pages that show its numbers.")
    parser.add_argument("store", help="a store in which the demo is finished")
    parser.add_argument("--seconds", type=float, required=True, help="how long `make demo` took from an empty store")
    parser.add_argument("--root", type=Path, default=Path(), help="the repository")
    asked = parser.parse_args()
    known = numbers(asked.store, asked.seconds)
    (asked.root / FILE).write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for page in PAGES:
        path = asked.root / page
        path.write_text(filled(path.read_text(encoding="utf-8"), known), encoding="utf-8")


if __name__ == "__main__":
    _main()
