"""Every table, described once: schema check, documentation and SQL views are made from this module.

`run` partitions a table on disk. `keys` name one row; `item` is the key that is replaced on its own inside a
(run, step), so that one detector or mechanism can be recomputed without touching its neighbours.
`sort` is the order of rows in a file (the keys, if not said); it starts with what queries choose by, and keeps examples
in one order for every target, which compresses best. `ranked` is the value that people ask the largest and smallest of:
compaction puts these rows first, so that such a query reads little else.
Two provenance columns end every table that is computed:
`input_fingerprint` (what the rows were made from) and `data_version` (what they hold).
"""

from dataclasses import dataclass, field

import pyarrow as pa

_TYPES = {
    "string": pa.string(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
}


@dataclass(frozen=True)
class Column:
    """One column: name, type, unit, meaning."""

    name: str
    type: str
    meaning: str
    unit: str = ""
    nullable: bool = False
    default: str | None = None
    """What an empty value means, where the column came after rows had been written: it is read as this."""


@dataclass(frozen=True)
class Table:
    """One table: what a row is, its columns, and which columns name a row."""

    name: str
    meaning: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    item: str | None = None
    sort: tuple[str, ...] = ()
    ranked: str | None = None
    computed: bool = True
    all_columns: tuple[Column, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "all_columns", self.columns + (PROVENANCE if self.computed else ()))

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema in column order; Delta keeps exactly these types."""
        return pa.schema([pa.field(c.name, _TYPES[c.type], nullable=c.nullable) for c in self.all_columns])

    @property
    def item_sql(self) -> str:
        """SQL for the item that a row belongs to. Every method of influence is an item of its own."""
        if self.item is None:
            return "''"
        if "method" not in self.keys:
            return self.item
        return f"case when method = '{ADJOINT}' then {self.item} else {self.item} || ':' || method end"

    @property
    def order(self) -> tuple[str, ...]:
        """Columns by which files are sorted."""
        return self.sort or self.keys

    @property
    def has_blobs(self) -> bool:
        """Whether rows name files (`uri`, `bytes`, `sha256`)."""
        return any(column.name == "uri" for column in self.columns)

    @property
    def per_run(self) -> bool:
        """Whether rows belong to a run (then `run` partitions the files)."""
        return "run" in self.keys


PROVENANCE = (
    Column("input_fingerprint", "string", "SHA-256 of code version, spec slice and input data versions"),
    Column("data_version", "string", "SHA-256 of what this (run, step, item) holds: its rows, its state or its file"),
)
RUN = Column("run", "string", "run id: <experiment>.<arm>.s<seed>")
STEP = Column("step", "int32", "checkpoint step: optimizer updates done", "updates")
MECHANISM = Column("mechanism", "string", "name of the mechanism")
ADJOINT, EVERYTHING = "adjoint", "all"
METHOD = Column(
    "method",
    "string",
    "estimator: adjoint (exact), or a cheap one (see docs/method.md); never add up several",
    nullable=True,
    default=ADJOINT,
)
MEANING = Column(
    "meaning",
    "string",
    "position: the token whose activations the gradient went through; target: the token whose loss it is",
)
TOKEN_POSITION = Column("token_position", "int32", "token of the example, from 0", "tokens")
FRACTION = Column("fraction", "float64", "share of the examples seen before `step` that is left out", "1")
UPDATE_STEP = Column("update_step", "int32", "update s, from state s to state s + 1", "updates")
BLOB = (
    Column("uri", "string", "file under the store's root"),
    Column("bytes", "int64", "size of the file", "bytes"),
    Column("sha256", "string", "SHA-256 of the file"),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            "runs",
            "one row per training run",
            (
                RUN,
                Column("experiment", "string", "experiment the run belongs to"),
                Column("arm", "string", "condition of the experiment"),
                Column("seed", "int64", "seed of initialisation and data order"),
                Column("fingerprint", "string", "identity: SHA-256 of the resolved spec and the corpus content"),
                Column("spec", "string", "the resolved spec, JSON"),
                Column("status", "string", "planned, training or complete"),
                Column("device", "string", "device and thread count that decide the run's bits"),
                Column("versions", "string", "versions of Python and packages, and git commit, JSON"),
                Column(
                    "caveats",
                    "string",
                    "what makes attribution of this run unreliable or impossible; empty: nothing known beforehand",
                    nullable=True,
                ),
            ),
            keys=("run",),
        ),
        Table(
            "tokens",
            "one row per tokenised artifact of a run; runs with the same data share the files",
            (
                RUN,
                Column("artifact", "string", "corpus, tokenizer, pool, probe or weights"),
                Column("rows", "int64", "documents, vocabulary entries, examples, probe sequences or weights in it"),
                *BLOB,
                Column(
                    "shards", "int32", "files that hold its tokens; empty: the file itself holds everything", "", True
                ),
            ),
            keys=("run", "artifact"),
            item="artifact",
        ),
        Table(
            "token_shards",
            "one row per file of an artifact of `tokens` that is too large for one file",
            (
                RUN,
                Column("artifact", "string", "corpus or pool"),
                Column("shard", "int32", "place among the artifact's files, from 0"),
                Column("rows", "int64", "tokens (corpus) or examples (pool) in it"),
                *BLOB,
            ),
            keys=("run", "artifact", "shard"),
            item="artifact",
        ),
        Table(
            "examples",
            "one row per distinct training sequence; the id is stable across runs and experiments",
            (
                Column("example_id", "string", "first 16 hex characters of the SHA-256 of the token ids and tokenizer"),
                Column(
                    "kind",
                    "string",
                    "plain: consecutive text; tiled: one snippet repeated to fill the context; packed: whole documents"
                    " one after another, described by its first",
                ),
                Column("source", "string", "corpus, or part of it, the document belongs to"),
                Column("document", "string", "path or index of the document inside its source"),
                Column("offset", "int64", "where the example (or its snippet) starts in the document", "bytes"),
                Column("line", "int32", "line where it starts, from 1"),
                Column("period", "int32", "snippet length of a tiled example; 0 for plain text", "tokens"),
                Column("n_tokens", "int32", "length", "tokens"),
                Column("text", "string", "the decoded text"),
                Column(
                    "repeat_at", "int32", "where in `text` the snippet starts to repeat; 0: it does not", "characters"
                ),
            ),
            keys=("example_id",),
            computed=False,
        ),
        Table(
            "example_documents",
            "which tokens of a packed example come from which document; end-of-text tokens come from none",
            (
                Column("example_id", "string", "example"),
                Column("position", "int32", "first token in the example", "tokens"),
                Column("document", "string", "path or index of the document inside its source"),
                Column("source", "string", "corpus, or part of it, the document belongs to"),
                Column("offset", "int64", "where these tokens start in the document", "bytes"),
                Column("n_tokens", "int32", "tokens from the document", "tokens"),
            ),
            keys=("example_id", "position"),
            computed=False,
        ),
        Table(
            "batches",
            "which examples each update saw",
            (
                RUN,
                UPDATE_STEP,
                Column("position", "int32", "place in the batch"),
                Column("example_id", "string", "example of that place"),
            ),
            keys=("run", "update_step", "position"),
        ),
        Table(
            "checkpoints",
            "one row per kept state: weights, optimizer moments and data cursor",
            (
                RUN,
                STEP,
                Column("weights_sha256", "string", "SHA-256 of the weights alone"),
                Column("cursor", "int64", "examples consumed so far", "examples"),
                *BLOB,
            ),
            keys=("run", "step"),
        ),
        Table(
            "zooms",
            "one row per stretch of a run of which more states are kept than its plan asks for (`mech zoom`)",
            (
                RUN,
                Column("first_step", "int32", "first state that is kept", "updates"),
                Column("last_step", "int32", "the window's end", "updates"),
                Column("every", "int32", "distance of the states that are kept", "updates"),
            ),
            keys=("run", "first_step", "last_step", "every"),
            computed=False,
        ),
        Table(
            "training_metrics",
            "one row per update and metric",
            (
                RUN,
                Column("step", "int32", "update s, from state s to state s + 1", "updates"),
                Column("metric", "string", "loss_nats, gradient_norm, clip_factor or learning_rate"),
                Column("value", "float64", "the metric", "nats (loss), 1 (factor, rate), L2 norm (gradient)"),
            ),
            keys=("run", "step", "metric"),
        ),
        Table(
            "mechanism_values",
            "one row per checkpoint and mechanism",
            (RUN, STEP, MECHANISM, Column("value", "float64", "the mechanism; higher is more formed", "see mechanism")),
            keys=("run", "step", "mechanism"),
            item="mechanism",
        ),
        Table(
            "head_scores",
            "one row per checkpoint, attention head and detector",
            (
                RUN,
                STEP,
                Column("layer", "int32", "layer, from 0"),
                Column("head", "int32", "head, from 0"),
                Column("detector", "string", "name of the detector"),
                Column(
                    "value", "float64", "score; 1 is a perfect head", "attention probability, or [-1, 1] for copying"
                ),
            ),
            keys=("run", "step", "layer", "head", "detector"),
            item="detector",
        ),
        Table(
            "gradients",
            "one row per checkpoint, gradient and component; the tensor itself is in the blob",
            (
                RUN,
                STEP,
                Column("gradient", "string", "a mechanism, or `batch`: the loss of the next training batch"),
                Column("component", "string", "part of the model, for example L1H3.Q"),
                Column(
                    "value", "float64", "L2 norm of the gradient in that component", "unit of the gradient's scalar"
                ),
                *BLOB,
            ),
            keys=("run", "step", "gradient", "component"),
            item="gradient",
        ),
        Table(
            "ledger",
            "what happened: how each example's gradient moved a mechanism since the previous checkpoint",
            (
                RUN,
                STEP,
                MECHANISM,
                UPDATE_STEP,
                Column("term", "string", "example, weight_decay or momentum (carried in from earlier updates)"),
                Column("example_id", "string", "example; none for the other terms", nullable=True),
                Column("component", "string", "part of the model the gradient acted on, for example L1H3.Q"),
                Column(
                    "value",
                    "float32",
                    "contribution up to this checkpoint; sums to the change of the mechanism",
                    "unit of the mechanism",
                ),
                Column(
                    "value_later",
                    "float32",
                    "contribution of the same gradient after this checkpoint, through momentum;"
                    " sums over a run to the momentum terms",
                    "unit of the mechanism",
                ),
            ),
            keys=("run", "step", "mechanism", "update_step", "term", "example_id", "component"),
            item="mechanism",
            sort=("mechanism", "step", "term", "update_step", "example_id", "component"),
            ranked="value",
        ),
        Table(
            "ledger_balance",
            "the two checks of every ledger partition",
            (
                RUN,
                STEP,
                MECHANISM,
                Column(
                    "change",
                    "float64",
                    "true change of the mechanism since the previous checkpoint",
                    "unit of the mechanism",
                ),
                Column("explained", "float64", "sum of the ledger's values", "unit of the mechanism"),
                Column("updates", "int32", "updates in the window", "updates"),
                Column("gross", "float64", "sum of |net effect of one update|", "unit of the mechanism"),
                Column(
                    "update_error",
                    "float64",
                    "largest relative error of the rebuilt update, rounding of the stored weights subtracted",
                    "1",
                ),
                Column(
                    "example_error",
                    "float64",
                    "largest |sum over examples - batch| / (|gradient| |adjoint|)",
                    "1",
                ),
            ),
            keys=("run", "step", "mechanism"),
            item="mechanism",
        ),
        Table(
            "ledger_tokens",
            "what happened, by token: the whole effect (value + value_later) of an example's gradient, split by its tokens",
            (
                RUN,
                STEP,
                MECHANISM,
                MEANING,
                UPDATE_STEP,
                Column("example_id", "string", "example"),
                TOKEN_POSITION,
                Column(
                    "value",
                    "float32",
                    "contribution, on a grid of 1/64 of the example's typical (rms) token; sums to the example's",
                    "unit of the mechanism",
                ),
            ),
            keys=("run", "step", "mechanism", "meaning", "update_step", "example_id", "token_position"),
            item="mechanism",
            ranked="value",
        ),
        Table(
            "in_training",
            "what an update did to a mechanism to first order, by example, computed while the run trained",
            (
                RUN,
                MECHANISM,
                UPDATE_STEP,
                Column("example_id", "string", "example"),
                Column(
                    "value",
                    "float32",
                    "-(rate) <gradient of the mechanism, scaled gradient of the example>, both scalings as at the last"
                    " checkpoint; momentum left out",
                    "unit of the mechanism",
                ),
            ),
            keys=("run", "mechanism", "update_step", "example_id"),
            ranked="value",
        ),
        Table(
            "influence",
            "what would happen: derivative of a mechanism at `step` by the weight of one example at one update",
            (
                RUN,
                STEP,
                MECHANISM,
                UPDATE_STEP,
                Column("example_id", "string", "example"),
                Column(
                    "value",
                    "float32",
                    "d mechanism(step) / d weight; minus this is the predicted effect of removal",
                    "unit of the mechanism per unit weight",
                ),
                METHOD,
                Column(
                    "component",
                    "string",
                    "all, or the part of the model that the example's gradient acted on; parts sum to the whole",
                    nullable=True,
                    default=EVERYTHING,
                ),
                Column(
                    "reliable",
                    "bool",
                    "false: outside the regime in which this number may be trusted; empty: not measured",
                    nullable=True,
                ),
            ),
            keys=("run", "step", "mechanism", "method", "update_step", "example_id", "component"),
            item="mechanism",
            sort=("method", "mechanism", "step", "component", "update_step", "example_id"),
            ranked="value",
        ),
        Table(
            "influence_tokens",
            "what would happen, by token: influence of the loss of single target tokens of an example at one update",
            (
                RUN,
                STEP,
                MECHANISM,
                UPDATE_STEP,
                Column("example_id", "string", "example"),
                TOKEN_POSITION,
                Column(
                    "value",
                    "float32",
                    "d mechanism(step) / d weight of that token's loss, on a grid of 1/64 of the example's rms; sums to"
                    " the example's influence",
                    "unit of the mechanism per unit weight",
                ),
            ),
            keys=("run", "step", "mechanism", "update_step", "example_id", "token_position"),
            item="mechanism",
            ranked="value",
        ),
        Table(
            "sweeps",
            "one row per unfinished influence sweep: where it goes on after a crash",
            (
                RUN,
                STEP,
                Column("first_update", "int32", "earliest update whose scores are kept in the file", "updates"),
                *BLOB,
            ),
            keys=("run", "step"),
        ),
        Table(
            "reliability",
            "when influence may be trusted: one row per measure",
            (
                RUN,
                STEP,
                MECHANISM,
                Column(
                    "metric",
                    "string",
                    "metasmoothness, adjoint_norm, adjoint_growth, horizon_step, influence_sum (sum / sum of sizes),"
                    " agreement (rank correlation with the adjoint; _lower, _upper: its 95 % interval), reliable, and what"
                    " else an estimator knows of itself",
                ),
                Column("update_step", "int32", "update the measure belongs to; -1: the whole sweep", "updates"),
                Column("value", "float64", "the measure", "see METHOD in docs/method.md"),
                METHOD,
            ),
            keys=("run", "step", "mechanism", "method", "metric", "update_step"),
            item="mechanism",
        ),
        Table(
            "removals",
            "which examples a retraining left out",
            (
                RUN,
                STEP,
                Column("removal", "string", "random-<fraction>-<number>, or top-<fraction>-<method>-<mechanism>"),
                Column("example_id", "string", "example whose weight was 0 in every batch"),
            ),
            keys=("run", "step", "removal", "example_id"),
            item="removal",
        ),
        Table(
            "retrainings",
            "what really happened to a mechanism when examples were left out and the run was trained again",
            (
                RUN,
                STEP,
                Column("removal", "string", "see `removals`; none: nothing is left out, the baseline of the others"),
                FRACTION,
                Column("n_removed", "int32", "examples left out", "examples"),
                MECHANISM,
                Column(
                    "value",
                    "float64",
                    "the mechanism at `step` of the retrained run; empty if training diverged",
                    "unit of the mechanism",
                    nullable=True,
                ),
                Column("change", "float64", "value minus that of the baseline", "unit of the mechanism", nullable=True),
            ),
            keys=("run", "step", "removal", "mechanism"),
            item="removal",
        ),
        Table(
            "lds",
            "linear datamodeling score: rank correlation of predicted and real effects of random removals, and what"
            " removing the top examples did",
            (
                RUN,
                STEP,
                MECHANISM,
                METHOD,
                FRACTION,
                Column(
                    "metric",
                    "string",
                    "of random removals: lds, predicted_mean, predicted_spread, measured_mean, measured_spread, slope,"
                    " offset, diverged (how many have no value); of the top examples: query_loss_difference (what"
                    " removing them did), predicted_difference, query_loss_z (against random removals), top_diverged",
                ),
                Column("value", "float64", "the measure; absent where it is undefined", "see docs/method.md"),
                Column("lower", "float64", "end of its 95 % bootstrap interval", "", True),
                Column("upper", "float64", "end of its 95 % bootstrap interval", "", True),
                Column("n", "int32", "retrainings it rests on", "retrainings"),
            ),
            keys=("run", "step", "mechanism", "method", "fraction", "metric"),
            item="mechanism",
        ),
        Table(
            "formation",
            "when a value crossed its threshold and stayed across it",
            (
                RUN,
                Column("mechanism", "string", "mechanism, or best_head:<detector>"),
                Column(
                    "step", "int32", "first evaluation across the threshold; none if it never stayed", "updates", True
                ),
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
                Column("artifact", "string", "report.html or the name of a figure"),
                *BLOB,
            ),
            keys=("experiment", "artifact"),
        ),
    )
}

SNAPSHOT = "snapshot"
"""A view beside the tables, made when a connection is opened."""
SNAPSHOT_MEANING = "one row per table: the version of it that this connection sees"
SNAPSHOT_COLUMNS = "table, version, committed (time), rows, files, bytes"
