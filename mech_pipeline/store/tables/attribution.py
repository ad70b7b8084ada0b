"""Tables of attribution: what happened (ledger), what would happen (influence), and how far either may be trusted."""

from mech_pipeline.store.tables.table import (
    BLOB,
    EVERYTHING,
    FRACTION,
    MEANING,
    MECHANISM,
    METHOD,
    RUN,
    STEP,
    TOKEN_POSITION,
    UPDATE_STEP,
    Column,
    Derived,
    Table,
)

_OF_HEAD = "in views only: joins `head_scores`; empty where the component is no attention head"
_LAYER_AND_HEAD = tuple(
    Derived(
        Column(name, "int32", meaning, nullable=True),
        f"try_cast(regexp_extract(component, '^L(\\d+)H(\\d+)', {group}) as integer)",
    )
    for group, name, meaning in ((1, "layer", f"layer of the head, {_OF_HEAD}"), (2, "head", f"head, {_OF_HEAD}"))
)

ATTRIBUTION_TABLES = (
    Table(
        "ledger",
        "what happened: how each example's gradient moved a mechanism since the previous checkpoint",
        (
            RUN,
            STEP,
            MECHANISM,
            UPDATE_STEP,
            Column(
                "term",
                "string",
                "example, weight_decay or momentum (carried in from earlier updates); of runs from outside also "
                "replay_mismatch: what their replay ended away from the published state",
            ),
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
        derived=_LAYER_AND_HEAD,
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
        part_of="ledger",
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
        part_of="ledger",
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
        part_of="training_metrics",
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
                "the verdict on this number, as it stands when it is read (docs/method.md, Reliability): whether retraining"
                " confirmed it; where nothing was retrained, whether training is metasmooth and the update lies within the"
                " horizon; empty: not measured",
                nullable=True,
            ),
            Column(
                "weight",
                "float32",
                "weight that the example had in the loss of this update; leaving it out is predicted to change the"
                " mechanism by -weight * value",
                "1",
                nullable=True,
                default=1.0,
                came_later=True,
            ),
            Column(
                "standard_error",
                "float32",
                "of the example's whole influence, the sum of weight * value over its updates, by how it differs between"
                " trajectories: the same in all its rows, never to be summed; empty: the method does not know it",
                "unit of the mechanism",
                nullable=True,
                came_later=True,
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
        part_of="influence",
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
        "sketches",
        "gradients of the examples between two checkpoints, as random projections: one row per file (docs/method.md)",
        (
            RUN,
            STEP,
            Column("until", "int32", "examples of updates `step` … `until` − 1", "updates"),
            Column("examples", "int32", "distinct examples", "examples"),
            Column("size", "int32", "numbers a gradient is kept with", ""),
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
                "metasmoothness, metasmoothness_since (its first update), value_at_0, value_at_h, value_at_2h (the mechanism"
                " as trained, and after the two perturbed trainings), "
                "adjoint_norm, adjoint_growth, horizon_step, influence_sum (sum / sum of sizes),"
                " agreement (rank correlation with the adjoint; _lower, _upper: its 95 % interval), trajectories and"
                " trajectory_agreement (mean rank correlation of two of them) of adjoint_mean, reliable, and what"
                " else an estimator knows of itself",
            ),
            Column("update_step", "int32", "update the measure belongs to; -1: the whole sweep", "updates"),
            Column("value", "float64", "the measure", "see Reliability in docs/method.md §2"),
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
            Column(
                "removal",
                "string",
                "random-<fraction>-<number>, top-<fraction>-<method>-<mechanism>, or matched-… (random, with the kinds of the top)",
            ),
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
                "of random removals: lds, reliable (its lower end is at least 0.5), "
                "predicted_mean, predicted_spread, measured_mean, measured_spread, slope,"
                " offset, diverged (how many have no value); of the top examples: query_loss_difference (what"
                " removing them did), predicted_difference, query_loss_z (against random removals), top_diverged;"
                " matched_difference, matched_predicted, matched_diverged: the same of a random set with the top's kinds",
            ),
            Column("value", "float64", "the measure; absent where it is undefined", "see docs/method.md"),
            Column("lower", "float64", "end of its 95 % bootstrap interval", "", True),
            Column("upper", "float64", "end of its 95 % bootstrap interval", "", True),
            Column("n", "int32", "retrainings it rests on", "retrainings"),
        ),
        keys=("run", "step", "mechanism", "method", "fraction", "metric"),
        item="mechanism",
    ),
)
