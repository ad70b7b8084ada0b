"""Views that answer what people ask most, made of the tables when a connection is opened; nothing of them is stored."""

from dataclasses import dataclass

from mech_pipeline.spec.analysis import HELD_OUT
from mech_pipeline.store.tables.table import MECHANISM, RUN, STEP, Column


@dataclass(frozen=True)
class View:
    """A view.

    Attributes:
        meaning: what a row is.
        reads: the tables that it is made of.
        sql: the SELECT behind it.
    """

    name: str
    meaning: str
    columns: tuple[Column, ...]
    reads: tuple[str, ...]
    sql: str

    @property
    def shown_columns(self) -> tuple[Column, ...]:
        """As those of a table."""
        return self.columns


_ARM = Column("arm", "string", "condition of the experiment")
_FORMED_AT = Column("formed_at", "int32", "step at which the mechanism formed", "updates")
_NATS = Column(
    "nats",
    "float64",
    "what the example's updates up to formation did, later through momentum included: sum of value + value_later",
    "unit of the mechanism",
)

VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View(
            "curves",
            "one row per checkpoint and mechanism, beside the run's experiment, arm and seed",
            (
                Column("experiment", "string", "experiment the run belongs to"),
                _ARM,
                Column("seed", "int64", "seed of initialisation and data order"),
                RUN,
                STEP,
                MECHANISM,
                Column("value", "float64", "the mechanism; higher is more formed", "see mechanism"),
            ),
            ("mechanism_values", "runs"),
            "select experiment, arm, seed, run, step, mechanism, value from mechanism_values join runs using (run)",
        ),
        View(
            "held_out_loss",
            "one row per checkpoint: its loss on held-out text (`held_out_loss` of the experiment)",
            (
                RUN,
                STEP,
                Column("loss_nats", "float64", "mean loss of the next token on text that no run trains on", "nats"),
            ),
            ("mechanism_values",),
            f"select run, step, -value as loss_nats from mechanism_values where mechanism = '{HELD_OUT}'",
        ),
        View(
            "before_formation",
            "the rows of the ledger up to the checkpoint at which their mechanism formed; none of runs in which it never did",
            (RUN, MECHANISM, _FORMED_AT, Column("…", "", "all other columns of `ledger`")),
            ("ledger", "formation"),
            "select formation.step as formed_at, ledger.* from ledger join formation using (run, mechanism) "
            "where ledger.step <= formation.step",
        ),
        View(
            "responsible",
            "one row per example that acted on a mechanism before it formed, the strongest first by `rank`",
            (
                RUN,
                MECHANISM,
                Column("example_id", "string", "example"),
                _NATS,
                _FORMED_AT,
                Column("rank", "int64", "1: raised it most; by run and mechanism"),
            ),
            ("ledger", "formation"),
            "select *, rank() over (partition by run, mechanism order by nats desc) as rank from ("
            "select run, mechanism, example_id, sum(value::double + value_later::double) as nats, "
            "any_value(formation.step) as formed_at from ledger join formation using (run, mechanism) "
            "where term = 'example' and ledger.step <= formation.step group by run, mechanism, example_id)",
        ),
    )
}
