"""A tiny run of which nothing is asked but discovery."""

from mech_pipeline.store.reading.query import query

ALONE = {"mechanisms": ["induction_copy_advantage"], "influence": {}, "ledger": {}, "gradients": []}


def rows(run, sql):
    """Of the run's store."""
    return query(run.store.root, sql)
