"""Do seeds name the same examples? Every two runs of an arm that have an account of the same mechanism."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from mech_pipeline.reports.contrast.contrast import SHARE
from mech_pipeline.reports.contrast.queries import example_totals
from mech_pipeline.reports.subject import Account, Study, Subject, attributed, subject
from mech_pipeline.statistics.overlap import Overlap, overlap


@dataclass(frozen=True)
class Agreement:
    """Two runs, each up to its own target step, over the examples that both have a total of."""

    account: Account
    first: Subject
    second: Subject
    top: Overlap


def agreements(study: Study) -> list[Agreement]:
    """All pairs; the ledger first."""
    return study.once("agreements", lambda: [*_pairs(study, "ledger"), *_pairs(study, "influence")])


def _pairs(study: Study, account: Account) -> Iterator[Agreement]:
    arms = {spec.run: spec.arm for spec in study.specs}
    found = [
        pair for pair in attributed(study.connection, account, study.runs) if pair[1] in study.experiment.mechanisms
    ]
    for (one, mechanism), (other, same) in combinations(found, 2):
        if mechanism == same and arms[one] == arms[other]:
            first, second = (subject(study.connection, run, mechanism) for run in (one, other))
            totals = example_totals(study.connection, first, account).select("example_id", "total")
            others = example_totals(study.connection, second, account).select("example_id", other="total")
            both = totals.join(others, on="example_id").sort("example_id")
            if len(both):
                yield Agreement(
                    account, first, second, overlap(both["total"].to_numpy(), both["other"].to_numpy(), SHARE)
                )
