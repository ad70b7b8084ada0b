"""May influence be trusted? One verdict, from the strongest evidence there is.

What retraining measured (table `lds`) outranks what is known of the sweep itself (table `reliability`): metasmoothness and
the adjoint's growth say whether a derivative can predict, removals whether it did.
"""

from dataclasses import dataclass

import duckdb

from mech_pipeline.frames import frame
from mech_pipeline.statistics.verdict import FEWEST_REMOVALS


@dataclass(frozen=True)
class Trust:
    """A verdict.

    Attributes:
        reliable: none if nothing was measured.
        retrained: whether retraining says so.
    """

    reliable: bool | None
    retrained: bool

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if self.reliable is None:
            return "Whether this influence is reliable has not been measured."
        if self.retrained:
            confirmed = "confirmed it" if self.reliable else "did not confirm it: take it as a hint, not as evidence"
            return f"Retraining without random examples {confirmed}."
        if self.reliable:
            return (
                "Its reliability measures are within their limits, which is needed and not enough: "
                f"{FEWEST_REMOVALS} or more retrainings, each without other random examples, would decide."
            )
        return "This influence is marked not reliable: take it as a hint, not as evidence."


def trust(connection: duckdb.DuckDBPyConnection, run: str, step: int, mechanism: str, method: str = "adjoint") -> Trust:
    """The verdict on one estimator's influence; retraining must have confirmed it for removals of every size tried.

    Args:
        connection: sees the tables `lds` and `reliability`.
        method: the estimator; the exact one unless another is named.
    """
    found = frame(
        connection,
        """with said as (
            select 'lds' as source, value from lds where metric = 'reliable' and n >= $fewest
            and run = $run and step = $step and mechanism = $mechanism and method = $method
            union all
            select 'sweep', value from reliability where metric = 'reliable' and update_step = -1
            and run = $run and step = $step and mechanism = $mechanism and method = $method)
        select source, min(value) = 1 as reliable from said group by source order by source limit 1""",
        run=run,
        step=step,
        mechanism=mechanism,
        method=method,
        fewest=FEWEST_REMOVALS,
    )
    if found.is_empty():
        return Trust(None, retrained=False)
    source, reliable = found.row(0)
    return Trust(bool(reliable), retrained=source == "lds")


@dataclass(frozen=True)
class Verdict:
    """What is known of one estimator's scores on one target.

    Attributes:
        outside, unmeasured, total: scores that are flagged, of which nothing is known, and all.
        confirmed: what retraining says; none: it was not measured.
    """

    name: str
    outside: int
    unmeasured: int
    total: int
    confirmed: bool | None

    @property
    def flagged(self) -> bool:
        """Retraining's word counts; else any score outside its regime."""
        return self.outside > 0 if self.confirmed is None else not self.confirmed

    @property
    def unknown(self) -> bool:
        """Whether nothing was measured."""
        return self.confirmed is None and self.unmeasured == self.total

    @property
    def words(self) -> str:
        """Why it is flagged."""
        return (
            "not confirmed by retraining" if self.confirmed is False else f"{self.outside:,} of {self.total:,} scores"
        )


def influence_verdicts(connection: duckdb.DuckDBPyConnection) -> list[Verdict]:
    """All targets and estimators by name.

    Args:
        connection: sees the tables `influence` and `lds`.
    """
    counted = connection.execute(
        """with measured as (
            select run, step, mechanism, method, min(value) = 1 as confirmed from lds
            where metric = 'reliable' and n >= $fewest group by all)
        select run || '|' || step || ' ' || mechanism || ' ' || method as name, count(*) filter (reliable = false),
            count(*) filter (reliable is null), count(*), any_value(confirmed)
        from influence left join measured using (run, step, mechanism, method) group by 1 order by 1""",
        {"fewest": FEWEST_REMOVALS},
    ).fetchall()
    return [Verdict(*row) for row in counted]
