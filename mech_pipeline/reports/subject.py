"""What a report is made from (a study), and what an attribution speaks of: one mechanism of one run at one step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

import duckdb

from mech_pipeline.data.example_tokens import TokenReader, no_tokens
from mech_pipeline.frames import frame
from mech_pipeline.reports.wording import signal_unit
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.run import RunSpec

Account = Literal["ledger", "influence"]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Subject:
    """What is explained.

    Attributes:
        target: the step up to which examples are held responsible.
    """

    run: str
    mechanism: str
    target: int

    @property
    def unit(self) -> str:
        """The unit of the mechanism."""
        return signal_unit(self.mechanism)

    @property
    def title(self) -> str:
        """The subject in words."""
        return f"{self.mechanism} at step {self.target:,}, run {self.run}"


@dataclass(frozen=True)
class Study:
    """An experiment and the store that holds its results. Runs that the experiment no longer has stay out.

    Attributes:
        connection: from `store.reading.connect`.
        specs: the experiment's runs, in its order.
        tokens: reads the tokens of a run's examples.
        parameters: how many parameters a run's model has, as its checkpoints say; none before there are any.
    """

    connection: duckdb.DuckDBPyConnection
    experiment: Experiment
    specs: tuple[RunSpec, ...]
    tokens: TokenReader = no_tokens
    parameters: Callable[[str], int | None] = lambda run: None
    _kept: dict[object, Any] = field(default_factory=dict, repr=False)

    def once(self, key: object, make: Callable[[], Made]) -> Made:
        """What `make` gives, made the first time that somebody asks for the key: sections share what is costly."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @cached_property
    def runs(self) -> list[str]:
        """Run ids."""
        return [spec.run for spec in self.specs]

    @cached_property
    def ledgers(self) -> list[Subject]:
        """Of each of the experiment's mechanisms, the first run that has a ledger."""
        return self._shown("ledger")

    @cached_property
    def influences(self) -> list[Subject]:
        """Of each of the experiment's mechanisms, the first run that has an exact influence."""
        return self._shown("influence")

    def _shown(self, account: Account) -> list[Subject]:
        pairs = first_per_mechanism(attributed(self.connection, account, self.runs))
        return [subject(self.connection, *pair) for pair in pairs if pair[1] in self.experiment.mechanisms]


def first_per_mechanism(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Of (run, mechanism) pairs, the first of each mechanism.

    >>> first_per_mechanism([("a.s0", "m"), ("a.s1", "m"), ("a.s1", "k")])
    [('a.s0', 'm'), ('a.s1', 'k')]
    """
    seen: dict[str, tuple[str, str]] = {}
    for pair in pairs:
        seen.setdefault(pair[1], pair)
    return list(seen.values())


def attributed(connection: duckdb.DuckDBPyConnection, account: Account, runs: Sequence[str]) -> list[tuple[str, str]]:
    """The (run, mechanism) pairs among `runs` that have a ledger or an exact influence, in the order of `runs`."""
    exact = "and method = 'adjoint'" if account == "influence" else ""
    pairs = frame(
        connection,
        f"""select run, mechanism from {account} where run = any($runs::varchar[]) {exact} group by 1, 2
        order by list_position($runs::varchar[], run), mechanism""",
        runs=list(runs),
    )
    return pairs.rows()


def subject(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> Subject:
    """The subject of a run that is `attributed`."""
    target = target_step(connection, run, mechanism)
    assert target is not None, "a ledger has a last step, an influence a target step"
    return Subject(run, mechanism, target)


def target_step(connection: duckdb.DuckDBPyConnection, run: str, mechanism: str) -> int | None:
    """The step up to which examples are held responsible: that of the influence.

    Of several influence steps, one that is still a formation step of the run wins over one that no longer is, then the
    latest. Without influence: the formation step, and without that the last step of the ledger; none without either.
    """
    steps = frame(
        connection,
        """with formed as (select step from formation where run = $run and step is not null),
        candidates as (
            select step, 3 + (step in (from formed))::int as rank from influence
            where run = $run and mechanism = $mechanism and method = 'adjoint'
            union all select step, 2 from formation where run = $run and mechanism = $mechanism and step is not null
            union all select step, 1 from ledger where run = $run and mechanism = $mechanism)
        select step from candidates order by rank desc, step desc limit 1""",
        run=run,
        mechanism=mechanism,
    )
    return None if steps.is_empty() else int(steps.item())
