"""The table `probe_sequences`: what mechanisms are measured on, as rows, so that SQL can tell whether training saw it.

Written when a run's tokens are made or described anew; no fingerprint contains it, so a store without it is current.
Probe data without a tensor `tokens` of sequences (a readout of the weights alone) leave no rows.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from mech_pipeline.data.examples import example_ids
from mech_pipeline.data.tokenizer import tokenizer_identity
from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.mechanisms.sequences import Sequences
from mech_pipeline.pipeline.checkpoints import artifact_versions
from mech_pipeline.pipeline.tokens.tokens import stored_tokenizer
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store

TABLE = "probe_sequences"


def write_probe_sequences(store: Store, spec: RunSpec, probe: Probe) -> None:
    """The rows of the mechanisms that the run names, where they are not those of now. One commit, if any."""
    tokenizer, version = stored_tokenizer(store, spec.run), artifact_versions(store, spec.run)["probe"]
    asked = dict.fromkeys((*spec.measured, *spec.gradients, *spec.ledger, *spec.influence.mechanisms))
    there = _stored(store, spec.run)
    names = [name for name in asked if (name, MECHANISMS[name].version, version) not in there]
    rows = [
        row | {"run": spec.run, "mechanism": name, "mechanism_version": MECHANISMS[name].version, "probe": version}
        for name in names
        for row in _rows(probe.of(name, MECHANISMS[name].data), tokenizer)
    ]
    if rows:
        columns = {column: [row[column] for row in rows] for column in rows[0]}
        store.write(TABLE, columns, replace={"run": [spec.run], "mechanism": names})


def _stored(store: Store, run: str) -> set[tuple[str, str, str]]:
    """(mechanism, its version, version of the probe) of the rows that a run has."""
    with store.reading(TABLE) as connection:
        rows = connection.execute(
            f"select distinct mechanism, mechanism_version, probe from {TABLE} where run = ?", [run]
        ).fetchall()
    return set(rows)


def _rows(data: Any, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    tokens = getattr(data, "tokens", None)
    if not isinstance(tokens, Tensor) or tokens.ndim != 2:
        return
    ids: NDArray[np.int32] = tokens.cpu().numpy().astype(np.int32)
    periods = data.period.tolist() if isinstance(data, Sequences) else [0] * len(ids)
    names = example_ids(ids, tokenizer_identity(tokenizer))
    for place, (row, period, name) in enumerate(zip(ids.tolist(), periods, names, strict=True)):
        yield {
            "sequence": place,
            "example_id": name,
            "n_tokens": len(row),
            "token_ids": " ".join(map(str, row)),
            "text": tokenizer.decode(row, skip_special_tokens=False),
            "repeat_at": len(tokenizer.decode(row[:period], skip_special_tokens=False)) if period else 0,
        }
