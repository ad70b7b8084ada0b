"""A ledger that was stopped between windows, at any of them, has the bits of one that was not."""

import pytest

from mech_pipeline.pipeline.cells import steps_of
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.ledger import wanted as ledger_cells
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support import tiny
from tests.support.once import trained

pytestmark = pytest.mark.usefixtures("folder")
SCHEDULED = {
    "optimizer": {"kind": "adam", "schedule": "wsd", "warmup_steps": 2, "decay_steps": 6, "weight_decay": 0.1},
    "training": {"steps": 24, "batch": 8, "micro_batches": 4},
    "ledger": {"mechanisms": ["induction_copy_advantage", "previous_token_attention"], "weights": True},
}
SINGLE = {"checkpoints": {"every": 6, "dense_every": 1, "dense": [[0, 2], [22, 24]]}}
"""Windows of one update at both ends of the run."""


class Killed(Exception):
    """Nothing catches it."""


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, SCHEDULED, SINGLE], ids=["plain", "scheduled", "windows of one update"])
def test_a_ledger_stopped_after_every_window_has_the_same_bits(local_store, folder, monkeypatch, change):
    monkeypatch.setattr(ledger, "_FLUSH_WINDOWS", 1)
    spec = tiny.spec_of(**change)
    whole, stopped = trained(local_store, spec), trained(Store(folder / "stopped"), spec)
    ledger.compute_ledger(whole, whole.planned)

    kills = 0
    while late := set(steps_of(ledger_cells.pending(OpenRun(stopped.store, spec), stopped.planned))):

        def published(steps, late=late):
            if late & set(steps):  # what was current before is told as well
                raise Killed

        with pytest.raises(Killed):
            ledger.compute_ledger(OpenRun(stopped.store, spec), stopped.planned, published)
        kills += 1
    assert kills == len(whole.planned) - 1, "one window each time"
    for table in ("ledger", "ledger_balance"):
        rows = f"select * from {table} order by all"
        assert query(stopped.store.root, rows).equals(query(whole.store.root, rows))
