"""Tables of MLP neurons: what made them."""

from mech_pipeline.store.tables.table import RUN, Column, Table

_WINDOW = (
    Column("step", "int32", "where the window ends", "updates"),
    Column("begin", "int32", "where it begins", "updates"),
)
_PART = (
    Column("layer", "int32", "layer, from 0"),
    Column("neuron", "int32", "neuron of its MLP, from 0"),
    Column("part", "string", "in: weights that read (with bias), gate: of gated MLPs, out: weights that write"),
)
_KEYS = ("run", "step", "layer", "neuron", "part")
_LENGTH = "L2 length of weights"

NEURON_TABLES = (
    Table(
        "neurons",
        "one row per window of training, neuron and part of it: how far it moved, how many tokens moved it, and what holding"
        " the neuron at its mean costs on those tokens",
        (
            RUN,
            *_WINDOW,
            *_PART,
            Column("displacement", "float64", "how far the part moved in the window", _LENGTH),
            Column("examples", "float64", "of that: all examples of the window", _LENGTH),
            Column("weight_decay", "float64", "of that: weight decay", _LENGTH),
            Column("momentum", "float64", "of that: momentum carried into the window", _LENGTH),
            Column("imbalance", "float64", "(sum of these − displacement) / displacement; 0 up to rounding", "share"),
            Column(
                "effective_tokens",
                "float64",
                "exp of the entropy of the positive scores by token; 1: one token, k: like k equal ones",
                "tokens",
                True,
            ),
            Column(
                "effect_attributed",
                "float64",
                "loss on held-out positions that read one of its tokens, with the neuron at its mean, minus the loss as it is;"
                " empty where it was not measured",
                "nats",
                True,
            ),
            Column("effect_matched", "float64", "the same for other tokens of the same frequency", "nats", True),
            Column("effect_low", "float64", "lower end of 95 % of attributed − matched (bootstrap)", "nats", True),
            Column("effect_high", "float64", "upper end", "nats", True),
        ),
        keys=_KEYS,
    ),
    Table(
        "neuron_tokens",
        "one row per window, part of a neuron and token that moved it furthest, with the position that did most",
        (
            RUN,
            *_WINDOW,
            *_PART,
            Column("place", "int32", "0: the token that moved it furthest"),
            Column("token", "int32", "token id, read at the position"),
            Column("text", "string", "the token"),
            Column(
                "score", "float64", "how far it moved the part towards where it went, all positions together", _LENGTH
            ),
            Column("share", "float64", "of all positive scores of the part", "share"),
        ),
        keys=(*_KEYS, "place"),
        part_of="neurons",
    ),
    Table(
        "vocabulary_readouts",
        "one row per window, head or neuron that moved, and token that the movement of its output weights promotes or suppresses",
        (
            RUN,
            *_WINDOW,
            Column("layer", "int32", "layer, from 0"),
            Column("part", "string", "head or neuron"),
            Column("unit", "int32", "head or neuron of the layer, from 0"),
            Column("direction", "string", "promoted or suppressed"),
            Column("place", "int32", "0: the strongest"),
            Column("token", "int32", "token id"),
            Column("text", "string", "the token"),
            Column(
                "logit",
                "float64",
                "what the movement adds to the token's logit on the direct path, for one unit of activation (a neuron) or of input"
                " along the direction that moved furthest (a head), before division by the final norm's length",
                "logit",
            ),
            Column("moved", "float64", "how far the output weights of the unit moved in the window", _LENGTH),
            Column("share", "float64", "of its square, along the direction that is read; 1 for neurons", "share"),
        ),
        keys=("run", "step", "layer", "part", "unit", "direction", "place"),
    ),
    Table(
        "neuron_contexts",
        "one row per window, part of a neuron and single position that moved it furthest",
        (
            RUN,
            *_WINDOW,
            *_PART,
            Column("place", "int32", "0: the position that moved it furthest"),
            Column("score", "float64", "how far it moved the part", _LENGTH),
            Column("update_step", "int32", "the update, from this state to the next", "updates"),
            Column("example_id", "string", "id of the example, see `examples`"),
            Column("position", "int32", "place of the token in the example, from 0", "tokens"),
            Column("before", "string", "up to 12 tokens before it"),
            Column("text", "string", "the token read there"),
            Column("after", "string", "the token after it, whose loss it was about in the first place"),
        ),
        keys=(*_KEYS, "place"),
        part_of="neurons",
    ),
)
