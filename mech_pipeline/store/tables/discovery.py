"""Tables of discovery: loss changes of probe tokens and what formed in them; atoms of applied updates."""

from mech_pipeline.store.tables.table import RUN, STEP, Column, Table

_PROBE = Column("probe_token", "int32", "number of the probe token, see `discovery_tokens`")
_ATOM = Column("atom", "int32", "number of the atom in its run, window by window")
_TRACK = Column("track", "int32", "number of the track in its run, in the order of births")
_END = Column("step", "int32", "last step of the window, a checkpoint", "updates")
_COHERENCE = Column("coherence", "float64", "mean cosine between its examples' raw gradients, sketched")
_BY_CHANCE = Column("by_chance", "float64", "the same of random groups of as many examples of the window: mean")
_CLUSTER = "number of the cluster in its run, 0: most was gained by looking"

DISCOVERY_TABLES = (
    Table(
        "token_movement",
        "one row per window between checkpoints, probe token and component: what the component's movement did to the token's loss",
        (
            RUN,
            STEP,
            _PROBE,
            Column("component", "string", "component, such as L1H3.K"),
            Column("value", "float32", "change of the loss since the checkpoint before; below 0: more likely", "nats"),
        ),
        keys=("run", "step", "probe_token", "component"),
    ),
    Table(
        "token_losses",
        "one row per window and probe token: its measured loss, and what the rows of `token_movement` sum to",
        (
            RUN,
            STEP,
            _PROBE,
            Column("loss_before", "float64", "at the checkpoint before", "nats"),
            Column("loss", "float64", "at this checkpoint, in double precision", "nats"),
            Column("explained", "float64", "sum of its `token_movement`: loss − loss_before up to rounding", "nats"),
        ),
        keys=("run", "step", "probe_token"),
        part_of="token_movement",
    ),
    Table(
        "discovery_tokens",
        "one row per probe token: where it stands, and the cluster that it is in",
        (
            RUN,
            _PROBE,
            Column("cluster", "int32", _CLUSTER + "; empty: in none", nullable=True),
            Column("kind", "string", "kind of the example, with the part of the corpus where it has parts"),
            Column("repeated", "bool", "it stands in a second or later copy of a tiled snippet"),
            Column("position", "int32", "place of the predicted token in its sequence, from 0", "tokens"),
            Column("token_ids", "string", "token ids up to it, with spaces"),
            Column("before", "string", "up to 24 tokens before it"),
            Column("text", "string", "the predicted token"),
            Column("loss_first", "float64", "its loss at the first checkpoint", "nats"),
            Column("loss_last", "float64", "at the last", "nats"),
        ),
        keys=("run", "probe_token"),
    ),
    Table(
        "discoveries",
        "one row per cluster of probe tokens: when and through which components their loss fell",
        (
            RUN,
            Column("cluster", "int32", _CLUSTER),
            Column(
                "is_discovery",
                "bool",
                "looking_low is at least the locked threshold, in four sequences or more (docs/discovery.md)",
            ),
            Column("tokens", "int32", "probe tokens in it"),
            Column("step", "int32", "where what it gains by looking bends upwards most", "updates"),
            Column("lower", "int32", "lower end of its 95 % interval (bootstrap over tokens)", "updates"),
            Column("upper", "int32", "upper end", "updates"),
            Column("half_step", "int32", "where half of it is gained", "updates"),
            Column("half_lower", "int32", "lower end of its 95 % interval", "updates"),
            Column("half_upper", "int32", "upper end", "updates"),
            Column("drop", "float64", "how far the mean loss fell over the run", "nats"),
            Column(
                "looking",
                "float64",
                "of that, through heads' queries and keys; by needs: what the order of the context came to be worth",
                "nats",
            ),
            Column("looking_low", "float64", "lower end of its 95 % interval", "nats"),
            Column("looking_high", "float64", "upper end", "nats"),
            Column("hidden", "bool", "around half_step the cluster gained more than three times what all tokens did"),
            Column(
                "components",
                "string",
                "those that carry 80 % of the drop, with their shares of it; by needs: of what is lost without each",
            ),
        ),
        keys=("run", "cluster"),
        part_of="discovery_tokens",
    ),
    Table(
        "cluster_courses",
        "one row per cluster by needs, checkpoint and measure: how its tokens fared in training",
        (
            RUN,
            STEP,
            Column("cluster", "int32", _CLUSTER),
            Column(
                "measure",
                "string",
                "loss: its mean; order: how much more it is where what came before has another order; a head or MLP: how much more "
                "it is where that writes its mean everywhere",
            ),
            Column("value", "float64", "mean over its tokens", "nats"),
        ),
        keys=("run", "step", "cluster", "measure"),
        part_of="discovery_tokens",
    ),
    Table(
        "atom_windows",
        "one row per window between checkpoints in which atoms were looked for: how much its examples have in common",
        (
            RUN,
            Column("number", "int32", "number of the window in its run"),
            Column("begin", "int32", "its first step", "updates"),
            _END,
            Column("examples", "int32", "examples that its updates saw"),
            Column("atoms", "int32", "atoms that were found"),
            Column("first_share", "float64", "share of the examples' variance along the first direction"),
            Column("first_share_by_chance", "float64", "the same of rows with nothing in common, at most"),
        ),
        keys=("run", "number"),
    ),
    Table(
        "atoms",
        "one row per atom: examples whose parts in a window's applied updates point the same way",
        (
            RUN,
            _ATOM,
            _TRACK,
            _END,
            Column("examples", "int32", "examples in it"),
            Column("share", "float64", "share of the examples' variance along its direction, both ends together"),
            _COHERENCE,
            _BY_CHANCE,
            Column("by_chance_most", "float64", "the largest of 200 random groups"),
            Column("is_coherent", "bool", "coherence is beyond that"),
            Column(
                "overlap",
                "float64",
                "Jaccard overlap with the atom of the window before; empty: it is new",
                nullable=True,
            ),
            Column(
                "components",
                "string",
                "those that carry 80 % of what its eight furthest examples together moved, squared, with shares",
            ),
        ),
        keys=("run", "atom"),
        part_of="atom_windows",
    ),
    Table(
        "atom_examples",
        "one row per atom and example in it",
        (
            RUN,
            _ATOM,
            Column("example_id", "string", "content hash of the example, see `examples`"),
            Column("place", "int32", "0: furthest along the atom's direction"),
            Column("along", "float64", "cosine of what the example did with the direction"),
        ),
        keys=("run", "atom", "example_id"),
        part_of="atom_windows",
    ),
    Table(
        "atom_tracks",
        "one row per atom over windows: when it came, was most coherent, and went",
        (
            RUN,
            _TRACK,
            Column("birth", "int32", "last step of the first window that has it", "updates"),
            Column("peak", "int32", "last step of the window in which it is most coherent", "updates"),
            Column("death", "int32", "last step of the last window that has it", "updates"),
            Column("windows", "int32", "windows; 1: the next one did not find it again"),
            Column("coherence", "float64", "at its peak"),
            Column("by_chance", "float64", "of random groups there: mean"),
            Column("components", "string", "at its peak, see `atoms`"),
        ),
        keys=("run", "track"),
        part_of="atom_windows",
    ),
)
