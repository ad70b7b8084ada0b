"""Tables of signals: their values at checkpoints, what was locked, and how locked signals did on unseen runs."""

from mech_pipeline.store.tables.table import RUN, STEP, Column, Table

_EXPERIMENT = Column("experiment", "string", "experiment")
_SIGNAL = Column("signal", "string", "name of the signal (signals/library)")
_TARGET = Column("target", "float64", "rate of false alarms, per run, that is aimed at", "1")
_LOCK = Column("lock_sha256", "string", "hash of everything that was decided before unseen runs were looked at")


def _quartiles(name: str, unit: str, meaning: str) -> tuple[Column, ...]:
    """Lower quartile, median, upper quartile; empty where nothing was announced."""
    return tuple(
        Column(f"{name}_{part}", "float64", f"{meaning}: {said}; empty: no event was announced", unit, True)
        for part, said in (("lower", "lower quartile"), ("median", "median"), ("upper", "upper quartile"))
    )


SIGNAL_TABLES = (
    Table(
        "signal_values",
        "one number per signal and checkpoint, known without naming a mechanism",
        (
            RUN,
            STEP,
            Column("signal", "string", "name of the signal (signals/library)"),
            Column("value", "float64", "empty: the signal abstains", "unit of the signal", True),
        ),
        keys=("run", "step", "signal"),
        item="signal",
    ),
    Table(
        "signal_locks",
        "one row per experiment, signal and target: the rule of its alarm, decided on explored seeds and never changed",
        (
            _EXPERIMENT,
            _SIGNAL,
            _TARGET,
            Column("reading", "string", "level: the value; change: since the first; slope: over three checkpoints"),
            Column("direction", "int32", "1: large values are suspicious; -1: small ones"),
            Column(
                "threshold", "float64", "alarm above it, the reading turned by the direction; empty: never", "", True
            ),
            Column("explored_auroc", "float64", "AUROC at equal time on the explored runs", "1"),
            Column("chosen", "bool", "whether the claim is made for this signal"),
            Column("claim", "float64", "rate of false alarms that the chosen signal is to stay below", "1"),
            Column("explored_seeds", "string", "seeds that were looked at, with commas between"),
            Column("explored_sha256", "string", "hash of the values and events that it was made from"),
            _LOCK,
        ),
        keys=("experiment", "signal", "target"),
    ),
    Table(
        "signal_scores",
        "one row per experiment, locked signal and target: how it did on runs that nobody had looked at",
        (
            _EXPERIMENT,
            _SIGNAL,
            _TARGET,
            Column("label", "string", "SUPPORTED, RANK ONLY, UNSTABLE, INCONCLUSIVE or FAILED (docs/signals.md)"),
            Column("chosen", "bool", "whether the claim is made for this signal"),
            Column("baseline", "bool", "whether it is one that the others have to beat"),
            Column("negatives", "int32", "negative runs in which it has a value", "runs"),
            Column("false_alarms", "int32", "of these, those that ring", "runs"),
            Column("rate_lower", "float64", "lower end of the exact 95 % interval of their share", "1"),
            Column("rate_upper", "float64", "upper end", "1"),
            Column("rate_bound", "float64", "one-sided: the share is shown to be below this", "1"),
            Column("floor", "float64", "smallest share that so many negatives can be shown to be below", "1"),
            Column("events", "int32", "runs with the event", "runs"),
            Column("announced", "int32", "of these, those that ring before it", "runs"),
            Column("coverage_lower", "float64", "lower end of the exact 95 % interval of their share", "1"),
            Column("coverage_upper", "float64", "upper end", "1"),
            Column("auroc", "float64", "chance that an event run peaks above a negative run, whole runs", "1"),
            Column("auroc_equal_time", "float64", "the same, negatives read only as far as the event run", "1"),
            Column("average_precision", "float64", "average precision over runs in order of their peaks", "1"),
            Column("ranks_p", "float64", "sign test: event runs peak above the median negative, equally long", "1"),
            *_quartiles("lead", "updates", "from alarm to event"),
            *_quartiles("lead_share", "1", "lead as a share of the event's step"),
            Column("abstained_events", "int32", "event runs without any value before the event", "runs"),
            Column("abstained_negatives", "int32", "negative runs without any value", "runs"),
            Column("not_formed", "int32", "runs of event arms without the event, left out", "runs"),
            Column("formed_anyway", "int32", "runs of negative arms with the event, left out", "runs"),
            _LOCK,
        ),
        keys=("experiment", "signal", "target"),
    ),
    Table(
        "signal_alarms",
        "one row per unseen run, locked signal and target: when it rang, and when the event came",
        (
            _EXPERIMENT,
            Column("arm", "string", "arm"),
            Column("seed", "int32", "seed"),
            RUN,
            _SIGNAL,
            _TARGET,
            Column("event", "int32", "step of the event; empty: a negative run", "updates", True),
            Column(
                "alarm", "int32", "first checkpoint at which it rings before the event; empty: none", "updates", True
            ),
            Column("peak", "float64", "largest turned reading before the event; empty: it abstains", "", True),
        ),
        keys=("experiment", "arm", "seed", "signal", "target"),
    ),
)
