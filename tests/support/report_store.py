"""A store of results small enough to do the sums by hand: two arms, five runs, one ledger, one influence sweep."""

from collections.abc import Sequence
from typing import Any

import duckdb

from mech_pipeline.reports.formation import queries as formation_queries
from mech_pipeline.reports.formation.figures import formation_curves
from mech_pipeline.reports.heads import queries as head_queries
from mech_pipeline.reports.heads.figures import head_scores_over_steps
from mech_pipeline.reports.influence import queries as influence_queries
from mech_pipeline.reports.influence.figures import influence_against_ledger, influence_over_updates
from mech_pipeline.reports.ledger import queries as ledger_queries
from mech_pipeline.reports.ledger.figures import ledger_over_steps
from mech_pipeline.reports.subject import Subject
from mech_pipeline.spec.experiment import Experiment, parse_experiment
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

MECHANISM, RUN = "induction_copy_advantage", "demo.baseline.s0"
SUBJECT = Subject(RUN, MECHANISM, 20)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCRIPT = "<script>alert(1)</script>"

# Powers of two, so that float32 columns hold the numbers exactly and sums can be compared with ==.
LEDGER = [  # step, update_step, term, example_id, component, value, value_later
    (10, 0, "example", "x00", "L0H1.Q", 0.5, 0.125),
    (10, 0, "example", "x00", "L0H1.K", 0.25, 0.0),
    (10, 0, "example", "x01", "embedding", -0.25, -0.0625),
    (10, 0, "weight_decay", None, "embedding", -0.125, 0.0),
    (20, 15, "example", "x00", "L1H0.O", 1.0, 0.0),
    (20, 15, "example", "x02", "L0.MLP.in", 4.0, 0.0),
    (20, 15, "momentum", None, "L0H1.Q", 0.0625, 0.0),
    (30, 25, "example", "x01", "embedding", 8.0, 0.0),
]


def write(store: Store, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], **cells: list[Any]) -> None:
    """Rows given as tuples in the order of `columns`; provenance is made up."""
    table = TABLES[name]
    filled = {column: [row[place] for row in rows] for place, column in enumerate(columns)}
    for column in table.all_columns:
        other = None if column.nullable else "made up"
        filled.setdefault(column.name, [column.default or other] * len(rows))
    if cells:
        store.write(name, filled, replace=cells)
    else:
        store.insert_new(name, filled)


def write_runs(store: Store) -> list[str]:
    """Baseline forms at 20, 30 and 40, control never; a run of an arm that the experiment no longer has forms at 10."""
    runs = [
        ("demo.baseline.s0", 20),
        ("demo.baseline.s1", 30),
        ("demo.baseline.s2", 40),
        ("demo.control.s0", None),
        ("demo.control.s1", None),
        ("demo.removed.s0", 10),
    ]
    names = [run for run, _ in runs]
    write(
        store,
        "runs",
        ("run", "experiment", "arm", "seed", "fingerprint", "spec", "status", "device", "versions"),
        [
            (
                run,
                "demo",
                run.split(".")[1],
                int(run[-1]),
                "f" * 64,
                "{}",
                "complete",
                "cpu, 1 thread",
                '{"torch": "2"}',
            )
            for run in names
        ],
        run=names,
    )
    steps = (0, 10, 20, 30, 40)
    write(
        store,
        "mechanism_values",
        ("run", "step", "mechanism", "value"),
        [
            (run, step, MECHANISM, 0.0 if formed is None or step < formed else 2.0 + int(run[-1]))
            for run, formed in runs
            for step in steps
        ],
        run=names,
    )
    write(
        store,
        "head_scores",
        ("run", "step", "layer", "head", "detector", "value"),
        [
            (run, step, layer, head, "prefix_matching", step * (1 + layer + head) / 160 if formed else 0.0)
            for run, formed in runs
            for step in steps
            for layer in (0, 1)
            for head in (0, 1)
        ],
        run=names,
    )
    columns = ("run", "mechanism", "step", "lower", "upper", "threshold", "sustain", "censored")
    write(
        store,
        "formation",
        columns,
        [
            (run, MECHANISM, formed, 40 if formed is None else formed - 10, formed, 1.0, 1, formed is None)
            for run, formed in runs
        ]
        + [
            (
                run,
                "best_head:prefix_matching",
                20 if run == RUN else None,
                10,
                20 if run == RUN else None,
                0.3,
                1,
                run != RUN,
            )
            for run in names
        ],
        run=names,
    )
    return names


def write_attribution(store: Store, kinds: tuple[str, str] = ("tiled", "plain")) -> None:
    """A ledger of three intervals, and influence on step 20 of forty examples; those of the first kind repeat."""
    texts = {2: SCRIPT + SCRIPT}
    write(
        store,
        "examples",
        ("example_id", "kind", "source", "document", "offset", "line", "period", "n_tokens", "text", "repeat_at"),
        [
            (
                f"x{i:02d}",
                kinds[i % 2],
                "stdlib",
                f"module_{i}.py",
                0,
                7 + i,
                0,
                8,
                texts.get(i, "def f(): def f(): "),
                0 if i % 2 else len(texts.get(i, "def f(): " * 2)) // 2,
            )
            for i in range(40)
        ],
    )
    write(
        store,
        "batches",
        ("run", "update_step", "position", "example_id"),
        [(RUN, step, 0, "x00") for step in (0, 15, 25)] + [(RUN, 15, 1, "x02")],
        run=[RUN],
    )
    write(
        store,
        "ledger",
        ("step", "update_step", "term", "example_id", "component", "value", "value_later", "run", "mechanism"),
        [(*row, RUN, MECHANISM) for row in LEDGER],
        run=[RUN],
    )
    write(
        store,
        "ledger_balance",
        ("run", "step", "mechanism", "change", "explained", "updates", "gross", "update_error", "example_error"),
        [
            (RUN, 10, MECHANISM, 0.375, 0.375, 10, 1.0, 1e-7, 3e-7),
            (RUN, 20, MECHANISM, 5.0625, 5.0625, 10, 5.0, 2e-7, 1e-7),
            (RUN, 30, MECHANISM, 7.5, 8.0, 10, 8.0, 0.0, 0.0),
        ],
        run=[RUN],
    )
    # x03 has the largest sum without the largest row; the rows at 10 and 30 are left from older formation steps.
    influence = [(20, 0, f"x{i:02d}", 40.0 - i) for i in range(40) if i != 3]
    influence += [(20, 1, "x03", 25.0), (20, 15, "x03", 25.0), (10, 0, "x39", 900.0), (30, 0, "x39", 900.0)]
    write(
        store,
        "influence",
        ("step", "update_step", "example_id", "value", "run", "mechanism"),
        [(*row, RUN, MECHANISM) for row in influence],
        run=[RUN],
    )
    measures = [
        ("metasmoothness", -1, 0.95),
        ("adjoint_growth", -1, 90.0),
        ("horizon_step", -1, 0.0),
        ("influence_sum", -1, -1.5e-6),
        ("reliable", -1, 1.0),
        ("adjoint_norm", 0, 45.0),
        ("adjoint_norm", 15, 0.5),
    ]
    write(
        store,
        "reliability",
        ("metric", "update_step", "value", "run", "step", "mechanism"),
        [(*row, RUN, 20, MECHANISM) for row in measures],
        run=[RUN],
    )


def demo_experiment(**change: Any) -> Experiment:
    """Two arms, with a ledger and influence of the first run, with some top-level fields replaced."""
    return parse_experiment(
        {
            "experiment": "demo",
            "question": "Does <repetition> make induction?",
            "corpus": {"python_stdlib": True},
            "mechanisms": [MECHANISM, "previous_token_attention"],
            "detectors": ["prefix_matching", "previous_token"],
            "formation": [
                {"mechanism": MECHANISM, "threshold": 1.0, "sustain": 1},
                {"detector": "prefix_matching", "threshold": 0.3, "sustain": 1},
            ],
            "ledger": {"mechanisms": [MECHANISM]},
            "influence": {"mechanisms": [MECHANISM]},
            "arms": {"baseline": {"seeds": [0, 1, 2]}, "control": {"seeds": [0, 1]}},
        }
        | change
    )


def drawn_figures(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> list[Any]:
    """Every kind of figure."""
    return [
        formation_curves(
            formation_queries.mechanism_curves(connection, runs),
            formation_queries.formation_events(connection, runs),
            {MECHANISM: "nats"},
        ),
        head_scores_over_steps(
            head_queries.head_scores(connection, RUN), RUN, {"prefix_matching": "attention probability"}
        ),
        ledger_over_steps(
            ledger_queries.ledger_by_component(connection, RUN, MECHANISM),
            ledger_queries.ledger_by_kind(connection, RUN, MECHANISM),
            ledger_queries.ledger_change(connection, RUN, MECHANISM),
            "nats",
            "title",
        ),
        influence_against_ledger(influence_queries.influence_against_ledger(connection, SUBJECT), "nats", "title"),
        influence_over_updates(
            influence_queries.influence_by_update(connection, SUBJECT),
            influence_queries.adjoint_norms(connection, SUBJECT),
            "nats",
            "title",
        ),
    ]
