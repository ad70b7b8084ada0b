"""Tables of causal experiments: what was chosen."""

from mech_pipeline.store.tables.table import RUN, Column, Table

CAUSAL_TABLES = (
    Table(
        "choices",
        "one row per example that a run of a choosing arm treats otherwise, and window of updates in which it does",
        (
            RUN,
            Column("example_id", "string", "example"),
            Column(
                "first_update",
                "int64",
                "first update in which it has this weight, or in which its place may be another",
                "updates",
            ),
            Column("last_update", "int64", "last such update; empty: to the end", "updates", True),
            Column("weight", "float64", "of its loss in the batch's; 0: left out, 2: twice", "1"),
            Column("rank", "int32", "place in the choice, from 1; of a matched one, that of the example it stands for"),
            Column("score", "float64", "what it was chosen by; empty: at random", "unit of what is chosen by", True),
            Column("stands_for", "string", "the example that it is matched to; empty: it is not matched", "", True),
            Column("replaced_by", "string", "the example that is shown in its places; empty: none is", "", True),
        ),
        keys=("run", "example_id", "first_update"),
    ),
    Table(
        "choice_balance",
        "one row per run and characteristic: how alike chosen examples and those matched to them are",
        (
            RUN,
            Column("characteristic", "string", "loss, length, token_frequency or gzip_ratio"),
            Column("chosen", "float64", "mean of the examples that are matched", "unit of the characteristic"),
            Column("matched", "float64", "mean of the examples that stand for them", "unit of the characteristic"),
            Column(
                "difference",
                "float64",
                "(chosen − matched) / pooled standard deviation; beyond ±0.1: not balanced",
                "1",
            ),
            Column("before", "float64", "the same, between the chosen and all that could be matched", "1"),
        ),
        keys=("run", "characteristic"),
    ),
)
