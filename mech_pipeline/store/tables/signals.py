"""Tables of signals: their values at checkpoints."""

from mech_pipeline.store.tables.table import RUN, STEP, Column, Table

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
)
