"""What is found in the loss changes of a run's probe tokens: clusters, ranked, and every token with its context."""

from typing import Any

import numpy as np

from mech_pipeline.discovery.clusters import clusters
from mech_pipeline.discovery.formed import Followed, Formed, discoveries
from mech_pipeline.discovery.paths import Paths
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.cells import Block, write
from mech_pipeline.pipeline.discovery.probe import DrawnTokens, drawn_for
from mech_pipeline.pipeline.discovery.wanted import DISCOVERY_VERSION, wanted_discovery
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store.store import Store

BEFORE = 24
"""Tokens of context that are kept as text."""


def compute_discovery(run: OpenRun) -> int:
    """Finds what formed and stores it.

    Raises:
        MechError: what is stored cannot be clustered (`Paths.check`); nothing is written.
    """
    paths = stored_paths(run.store, run.spec.run, run.planned)
    by = run.spec.discovery.by
    assert by != "needs", "what tokens need is looked at without paths"
    labels = clusters(paths, run.spec.discovery.smallest, by)
    found = discoveries(paths, labels, run.spec.discovery.seed)
    store_found(run, drawn_for(run), paths, found)
    return 1


def store_found(
    run: OpenRun,
    drawn: DrawnTokens,
    followed: Followed,
    found: list[Formed],
    courses: dict[str, list[Any]] | None = None,
) -> None:
    """Stores clusters and tokens in place of what was found before, in whichever way.

    Args:
        drawn: the tokens of `followed`.
        courses: rows of `cluster_courses`.
    """
    ((cell, made_from),) = wanted_discovery(run).items()
    for table, columns in (("discoveries", _columns(found)), ("cluster_courses", courses or {})):
        if any(columns.values()):
            write(run.store, [Block(cell.of(table), columns, made_from)], DISCOVERY_VERSION)
        else:
            run.store.delete(table, f"run = '{run.spec.run}'", code_version=DISCOVERY_VERSION)
    place = {int(token): number for number, one in enumerate(found) for token in one.tokens}
    tokens = _token_columns(drawn, followed, place, run)
    write(run.store, [Block(cell, tokens, made_from)], DISCOVERY_VERSION)


def stored_paths(store: Store, run: str, planned: tuple[int, ...]) -> Paths:
    """The loss changes of a run's probe tokens as the store has them.

    Raises:
        MechError: they were not computed.
    """
    with store.reading("token_movement", "token_losses") as connection:
        changes = connection.execute(
            "select step, probe_token, component, value from token_movement where run = ? and list_contains(?, step)",
            [run, list(planned)],
        ).fetchnumpy()
        losses = connection.execute(
            "select step, probe_token, loss_before, loss from token_losses where run = ? and list_contains(?, step)",
            [run, list(planned)],
        ).fetchnumpy()
    if not len(changes["step"]):
        raise MechError(f"run {run} has no loss changes of probe tokens", "set discovery.tokens and `mech run` it")
    return _paths(changes, losses)


def _paths(changes: dict[str, Any], losses: dict[str, Any]) -> Paths:
    ends = np.unique(changes["step"])
    names, component = np.unique(changes["component"].astype(str), return_inverse=True)
    tokens = int(changes["probe_token"].max()) + 1
    grid = np.zeros((tokens, len(ends), len(names)))
    grid[changes["probe_token"], np.searchsorted(ends, changes["step"]), component] = changes["value"]
    curves = np.zeros((tokens, len(ends) + 1))
    window = np.searchsorted(ends, losses["step"])
    curves[losses["probe_token"], window + 1] = losses["loss"]
    first = window == 0
    curves[losses["probe_token"][first], 0] = losses["loss_before"][first]
    return Paths(grid, curves, np.concatenate([[0], ends]).astype(np.int64), tuple(names.tolist()))


def _columns(found: list[Formed]) -> dict[str, list[Any]]:
    """A row for each cluster."""
    return {
        "cluster": list(range(len(found))),
        "is_discovery": [one.is_discovery for one in found],
        "tokens": [len(one.tokens) for one in found],
        "step": [int(one.begins.value) for one in found],
        "lower": [int(one.begins.low) for one in found],
        "upper": [int(one.begins.high) for one in found],
        "half_step": [int(one.half.value) for one in found],
        "half_lower": [int(one.half.low) for one in found],
        "half_upper": [int(one.half.high) for one in found],
        "drop": [one.drop.value for one in found],
        "looking": [one.looking.value for one in found],
        "looking_low": [one.looking.low for one in found],
        "looking_high": [one.looking.high for one in found],
        "hidden": [one.hidden for one in found],
        "components": [", ".join(f"{name} {share:.2f}" for name, share in one.components) for one in found],
    }


def _token_columns(drawn: DrawnTokens, paths: Followed, place: dict[int, int], run: OpenRun) -> dict[str, list[Any]]:
    """Every token with its context; tokens that are in no cluster are in no row of `place`."""
    origin = run.tokens.probe.origin
    assert origin is not None, "a run's probe knows its tokenizer"
    rows, positions = drawn.probe.tokens.tolist(), drawn.probe.position.tolist()

    def text(ids: list[int]) -> str:
        return origin.tokenizer.decode(ids, skip_special_tokens=False)

    return {
        "probe_token": list(range(len(rows))),
        "cluster": [place.get(token) for token in range(len(rows))],
        "kind": drawn.groups,
        "repeated": drawn.repeated.tolist(),
        "position": positions,
        "token_ids": [" ".join(map(str, row[: at + 1])) for row, at in zip(rows, positions, strict=True)],
        "before": [text(row[max(0, at - BEFORE) : at]) for row, at in zip(rows, positions, strict=True)],
        "text": [text([row[at]]) for row, at in zip(rows, positions, strict=True)],
        "loss_first": paths.losses[:, 0].tolist(),
        "loss_last": paths.losses[:, -1].tolist(),
    }
