"""A lock as rows, and back."""

import math
from typing import Any

from mech_pipeline.errors import MechError
from mech_pipeline.signals.locking import NEVER, Lock, Rule
from mech_pipeline.store.store import Store


def lock_rows(lock: Lock) -> dict[str, list[Any]]:
    """Columns of the table `signal_locks`."""
    rows = [
        {
            "signal": name,
            "target": target,
            "reading": rule.reading,
            "direction": rule.direction,
            "threshold": threshold if math.isfinite(threshold) else None,
            "explored_auroc": rule.explored,
            "chosen": name == lock.chosen,
        }
        for name, rule in sorted(lock.rules.items())
        for target, threshold in sorted(rule.thresholds.items())
    ]
    shared = {
        "claim": lock.claim,
        "explored_seeds": ",".join(map(str, lock.seeds)),
        "explored_sha256": lock.made_from,
        "lock_sha256": lock.sha256,
    }
    return {name: [row[name] for row in rows] for name in rows[0]} | {n: [v] * len(rows) for n, v in shared.items()}


def stored_lock(store: Store, experiment: str) -> tuple[Lock, str]:
    """The lock of an experiment, and the hash that was written with it.

    Raises:
        MechError: there is none, or its rows are not those of one lock.
    """
    with store.reading("signal_locks") as connection:
        rows = connection.execute(
            "select signal, target, reading, direction, threshold, explored_auroc, chosen, claim, explored_seeds, "
            "explored_sha256, lock_sha256 from signal_locks where experiment = ? order by signal, target",
            [experiment],
        ).fetchall()
    if not rows or len({row[7:] for row in rows}) != 1 or len({row[0] for row in rows if row[6]}) != 1:
        raise MechError(
            f"the store holds no lock of experiment {experiment}, or parts of several", "`mech run` the experiment"
        )
    rules: dict[str, Rule] = {}
    for signal, target, reading, direction, threshold, found, *_ in rows:
        known = dict(rules[signal].thresholds) if signal in rules else {}
        thresholds = known | {target: NEVER if threshold is None else threshold}
        rules[signal] = Rule(signal, reading, direction, thresholds, found)
    claim, seeds, made_from, sha256 = rows[0][7:]
    chosen = next(row[0] for row in rows if row[6])
    return Lock(rules, chosen, claim, tuple(map(int, seeds.split(","))), made_from), sha256
