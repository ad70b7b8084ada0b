"""Accounts as columns of the tables `ledger` and `ledger_tokens`."""

import numpy as np
import pyarrow as pa

from mech_pipeline.attribution.ledger.ledger import Account
from mech_pipeline.attribution.ledger.mismatch import Mismatch
from mech_pipeline.attribution.ledger.token_grid import on_grid
from mech_pipeline.pipeline.influence.score_rows import ExampleScores


def account_columns(account: Account, components: tuple[str, ...], example_ids: np.ndarray) -> dict[str, pa.Array]:
    """The rows of an account, without run, step and mechanism."""
    updates, batch, parts = account.examples.shape
    steps = np.array([made.before.step for made in account.updates], dtype=np.int32)
    pool_rows = np.stack([made.examples.numpy() for made in account.updates])
    unique, codes = np.unique(pool_rows.reshape(-1), return_inverse=True)
    others = updates * parts + parts  # weight decay of every update, momentum once
    example_code = np.concatenate([np.repeat(codes, parts), np.zeros(others)]).astype(np.int32)
    component_code = np.tile(np.arange(parts), updates * batch + updates + 1).astype(np.int32)
    term_code = np.repeat(np.arange(3), [updates * batch * parts, updates * parts, parts]).astype(np.int32)
    rows = {
        "update_step": pa.array(
            np.concatenate([np.repeat(steps, batch * parts), np.repeat(steps, parts), np.repeat(steps[:1], parts)])
        ),
        "term": _decoded(term_code, ["example", "weight_decay", "momentum"]),
        "example_id": _decoded(example_code, example_ids[unique].tolist(), term_code > 0),
        "component": _decoded(component_code, list(components)),
        "value": pa.array(
            np.concatenate(
                [
                    account.examples.flatten().cpu().numpy(),
                    account.weight_decay.flatten().cpu().numpy(),
                    account.momentum.cpu().numpy(),
                ]
            )
        ),
        "value_later": pa.array(
            np.concatenate(
                [
                    account.examples_later.flatten().cpu().numpy(),
                    account.weight_decay_later.flatten().cpu().numpy(),
                    np.zeros(parts),
                ]
            )
        ),
    }
    if any(len(set(row)) < batch for row in pool_rows.tolist()):
        rows = _summed(rows)
    return rows | {name: rows[name].cast(pa.float32()) for name in ("value", "value_later")}


def with_mismatch(
    columns: dict[str, pa.Array], away: Mismatch, components: tuple[str, ...], end: int
) -> dict[str, pa.Array]:
    """The rows of an account, and one for each component of what its replay ended away from the published state."""
    parts = len(components)
    added = {
        "update_step": pa.array(np.full(parts, end - 1, dtype=np.int32)),
        "term": pa.array(["replay_mismatch"] * parts),
        "example_id": pa.nulls(parts, pa.string()),
        "component": pa.array(list(components)),
        "value": pa.array(away.by_component.cpu().numpy()).cast(pa.float32()),
        "value_later": pa.array(np.zeros(parts, dtype=np.float32)),
    }
    return {name: pa.concat_arrays([column, added[name].cast(column.type)]) for name, column in columns.items()}


def _decoded(codes: np.ndarray, names: list[str], absent: np.ndarray | None = None) -> pa.Array:
    """A text column from codes, without a Python string per row."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, mask=absent), pa.array(names)).cast(pa.string())


def _summed(rows: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """An example that came twice in one batch gets one row."""
    keys = ["update_step", "term", "example_id", "component"]
    summed = pa.table(rows).group_by(keys).aggregate([("value", "sum"), ("value_later", "sum")]).combine_chunks()
    names = {name: f"{name}_sum" if name.startswith("value") else name for name in rows}
    return {name: summed[column].chunk(0) for name, column in names.items()}


def token_columns(account: Account, index: int, meaning: str, example_ids: np.ndarray) -> dict[str, pa.Array]:
    """The rows of an account by token, in its meaning number `index`; without run, step and mechanism."""
    assert account.tokens is not None, "asked for only if there are some"
    scores = account.tokens[:, index].double().cpu().numpy()
    found = ExampleScores.gathered(
        [made.before.step for made in account.updates],
        [made.examples.numpy() for made in account.updates],
        list(scores),
    )
    found = ExampleScores(found.update_step, found.example, on_grid(found.values))
    columns = found.columns(example_ids)
    first = 1 if meaning == "target" else 0  # the first token has no loss, the last one's activations are not used
    positions = np.arange(first, first + found.values.shape[1])
    return columns | {
        "token_position": found.parts(positions),
        "meaning": pa.repeat(meaning, len(columns["value"])),
    }
