"""Commits that a store has lost are made again by the pipeline, rows that nobody asks for by name included."""

import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store import delta
from mech_pipeline.store.care.repair import repair_store
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from tests.support import tiny
from tests.support.once import filled_once

pytestmark = pytest.mark.usefixtures("folder")
COPY = "induction_copy_advantage"
TABLES = ("checkpoints", "training_metrics", "in_training", "ledger", "ledger_tokens", "examples")


def accounted(store, spec):
    tiny.train(store, spec)
    run = OpenRun(store, spec)
    ledger.compute_ledger(run, run.planned)


def rows(store, table):
    named = "* exclude (uri)" if table == "checkpoints" else "*"
    return query(store.root, f"select {named} from {table} order by all").rows()


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["the newest commit", "the table"])
@pytest.mark.parametrize("table", TABLES)
def test_what_lost_commits_wrote_is_made_again(local_store, table, lost):
    asked = {"mechanisms": [COPY]}
    spec = tiny.spec_of(in_training=asked, ledger=asked | {"tokens": ["target"]})
    filled_once(local_store, spec, accounted)
    before = {name: rows(local_store, name) for name in TABLES}
    newest = delta.log_name(table, delta.latest_version(local_store.files, table))
    under = newest if lost == "the newest commit" else f"tables/{table}"
    local_store.files.remove([e.name for e in local_store.files.entries(f"tables/{table}") if e.name.startswith(under)])
    with pytest.raises(MechError, match="mech verify --repair"):
        rows(local_store, table)
    repair_store(local_store.files, verify_store(local_store.files))
    assert verify_store(local_store.files).damage == []
    accounted(local_store, spec)
    assert {name: rows(local_store, name) for name in TABLES} == before
