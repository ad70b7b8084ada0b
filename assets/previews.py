"""What the UI shows of a partition's rows: the query that finds them, and for assets of few partitions their first rows."""

from collections.abc import Iterable
from typing import Any

import dagster as dg

from mech_pipeline.store.reading import reading
from mech_pipeline.store.store import Store

ROWS = 5
_STEPS = "(select unnest($steps))"
_EXAMPLE = "kind, text, document, line"
_GROUPED = f"group by step, mechanism, {_EXAMPLE}"
_TOP = f"qualify row_number() over (partition by step, mechanism order by abs({{by}}) desc) <= {ROWS}"

QUERIES = {
    "runs": "select run, arm, seed, status, device, caveats from runs where run = $run",
    "tokens": "select artifact, rows, bytes from tokens where run = $run order by rows desc",
    "training_metrics": "select metric, arg_min(value, step) as first, arg_max(value, step) as last, min(value) as lowest, "
    "max(value) as highest from training_metrics where run = $run group by metric order by metric",
    "formation": "select mechanism, step, lower, upper, threshold, censored from formation where run = $run order by mechanism",
    "checkpoints": "select step, cursor as examples_seen, bytes, uri from checkpoints where run = $run and step in $$",
    "mechanism_values": "select step, mechanism, value from mechanism_values where run = $run and step in $$ order by all",
    "head_scores": "select step, layer, head, detector, value from head_scores where run = $run and step in $$ "
    "order by step, value desc",
    "gradients": "select step, gradient, component, value as norm from gradients where run = $run and step in $$ "
    "order by step, norm desc",
    "circuits": "select step, mechanism, source, target, score from circuits where run = $run and step in $$ and in_circuit "
    f"{_TOP.format(by='score')} order by step, mechanism, abs(score) desc",
    "neurons": "select step, layer, neuron, part, displacement, effective_tokens from neurons where run = $run and step in $$ "
    f"qualify row_number() over (partition by step order by displacement desc) <= {ROWS} order by step, displacement desc",
    "ledger": f"select step, mechanism, sum(value::double + value_later::double) as moved, {_EXAMPLE} "
    f"from ledger join examples using (example_id) where run = $run and step in $$ {_GROUPED} "
    f"{_TOP.format(by='moved')} order by step, mechanism, abs(moved) desc",
    "influence": "select step, mechanism, sum(value::double) as per_unit_weight, bool_and(reliable) as reliable, "
    f"{_EXAMPLE} from influence join examples using (example_id) where run = $run and step in $$ and method = 'adjoint' "
    f"{_GROUPED} "
    f"{_TOP.format(by='per_unit_weight')} order by step, mechanism, abs(per_unit_weight) desc",
    "reliability": "select step, mechanism, method, metric, value from reliability where run = $run and step in $$ "
    "and update_step = -1 order by all",
    "retrainings": "select step, removal, mechanism, n_removed, change from retrainings where run = $run and step in $$ "
    f"and change is not null {_TOP.format(by='change')} order by step, mechanism, abs(change) desc",
    "lds": "select step, mechanism, method, fraction, metric, value, lower, upper from lds where run = $run and step in $$ "
    "order by all",
}
"""By table. `$run` is the run, `$$` its steps. Ledger: what happened; influence: what would happen to first order."""

_READ_TOO = {"ledger": ["examples"], "influence": ["examples"]}
_LONGEST = 20


def query_of(table: str, run: str, step: int | None = None) -> dict[str, Any]:
    """How to find these rows again on the command line."""
    sql = QUERIES[table].replace("$run", f"'{run}'").replace("in $$", f"= {step}")
    assert not set(sql) & set('"$`\\'), "the query is shown in double quotes, to be read and pasted"
    return {"SQL": dg.MetadataValue.text(f'mech sql "{sql}"')}


def rows_of_run(store: Store, table: str, run: str) -> dict[str, Any]:
    """Query and first rows of a whole run."""
    return {**query_of(table, run), **_table(_read(store, table, {"run": run}))}


def rows_of_steps(store: Store, table: str, run: str, steps: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Query and first rows of each step, read in one go."""
    steps = list(steps)
    found: dict[int, list[dict[str, Any]]] = {step: [] for step in steps}
    for row in _read(store, table, {"run": run, "steps": steps}):
        found[row.pop("step")].append(row)
    return {step: {**query_of(table, run, step), **_table(rows)} for step, rows in found.items()}


def _read(store: Store, table: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    sql = QUERIES[table].replace("$$", _STEPS)
    with reading(store.root, [table, *_READ_TOO.get(table, [])]) as connection:
        return connection.sql(sql, params=parameters).pl().to_dicts()


def _table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Nothing where there are no rows: Dagster infers the columns from the first one."""
    if not rows:
        return {}
    records = [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in rows[:_LONGEST]]
    return {"first rows": dg.MetadataValue.table(records)}


def _cell(value: Any) -> str | float | int | bool:
    """A value as the UI can show it: texts on one line, numbers to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, str):
        line = " ".join(value.split())
        return line if len(line) <= 80 else f"{line[:79]}…"
    return "" if value is None else value
