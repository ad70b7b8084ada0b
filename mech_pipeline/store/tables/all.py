"""Every table, described once: schema check, documentation and SQL views are made from this module.

`run` partitions a table on disk. `keys` name one row; `item` is the key that is replaced on its own inside a
(run, step), so that one detector or mechanism can be recomputed without touching its neighbours.
`sort` is the order of rows in a file (the keys, if not said); it starts with what queries choose by, and keeps examples
in one order for every target, which compresses best. `ranked` is the value that people ask the largest and smallest of:
compaction puts these rows first, so that such a query reads little else.
Two provenance columns end every table that is computed:
`input_fingerprint` (what the rows were made from) and `data_version` (what they hold).
"""

from mech_pipeline.store.tables.attribution import ATTRIBUTION_TABLES
from mech_pipeline.store.tables.causal import CAUSAL_TABLES
from mech_pipeline.store.tables.circuits import CIRCUIT_TABLES
from mech_pipeline.store.tables.comparisons import COMPARISON_TABLES
from mech_pipeline.store.tables.discovery import DISCOVERY_TABLES
from mech_pipeline.store.tables.neurons import NEURON_TABLES
from mech_pipeline.store.tables.runs import RUN_TABLES
from mech_pipeline.store.tables.signals import SIGNAL_TABLES
from mech_pipeline.store.tables.table import ADJOINT, BLOB, EVERYTHING, RUN, Column, Table

__all__ = ["ADJOINT", "EVERYTHING", "SNAPSHOT", "SNAPSHOT_COLUMNS", "SNAPSHOT_MEANING", "TABLES", "Column", "Table"]

_RESULT_TABLES = (
    Table(
        "formation",
        "when a value crossed its threshold and stayed across it",
        (
            RUN,
            Column("mechanism", "string", "mechanism, or best_head:<detector>"),
            Column("step", "int32", "first evaluation across the threshold; none if it never stayed", "updates", True),
            Column("lower", "int32", "last evaluation before it: the crossing is later than this", "updates"),
            Column("upper", "int32", "equal to step; none if censored", "updates", True),
            Column("threshold", "float64", "absolute threshold", "unit of the mechanism"),
            Column("sustain", "int32", "consecutive evaluations asked for"),
            Column("censored", "bool", "true: did not form within the run"),
        ),
        keys=("run", "mechanism"),
        item="mechanism",
    ),
    Table(
        "reports",
        "one row per rendered report file",
        (
            Column("experiment", "string", "experiment"),
            Column("artifact", "string", "report.html, explore.html or the name of a figure"),
            *BLOB,
        ),
        keys=("experiment", "artifact"),
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        *(*RUN_TABLES, *CIRCUIT_TABLES, *ATTRIBUTION_TABLES, *NEURON_TABLES),
        *(*CAUSAL_TABLES, *COMPARISON_TABLES, *SIGNAL_TABLES, *DISCOVERY_TABLES, *_RESULT_TABLES),
    )
}

SNAPSHOT = "snapshot"
"""A view beside the tables, made when a connection is opened."""
SNAPSHOT_MEANING = "one row per table: the version of it that this connection sees"
SNAPSHOT_COLUMNS = "table, version, committed (time), rows, files, bytes"
