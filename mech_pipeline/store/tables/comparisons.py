"""Tables of what came of causal experiments: when arms formed, shifts between them, what had been predicted."""

from mech_pipeline.store.tables.table import MECHANISM, METHOD, RUN, STEP, Column, Table

_EXPERIMENT = Column("experiment", "string", "experiment")
_ARM = Column("arm", "string", "arm")
_WATCHED = Column("mechanism", "string", "mechanism, or best_head:<detector>")
_SHIFT = "updates; positive: later"

COMPARISON_TABLES = (
    Table(
        "arms",
        "one row per arm and watched value of an experiment with choices: how many runs formed, and when",
        (
            _EXPERIMENT,
            _ARM,
            _WATCHED,
            Column("runs", "int32", "runs whose formation is known", "runs"),
            Column("formed", "int32", "of these, those that formed; the others are censored", "runs"),
            Column(
                "median",
                "int32",
                "step by which half had formed (Kaplan–Meier); empty: fewer than half did",
                "updates",
                True,
            ),
            Column("median_lower", "int32", "lower end of its 95 % interval; empty: unknown", "updates", True),
            Column("median_upper", "int32", "upper end; empty: beyond what was trained", "updates", True),
            Column(
                "chosen", "float64", "examples a run treats otherwise, mean; empty: it chooses none", "examples", True
            ),
        ),
        keys=("experiment", "arm", "mechanism"),
    ),
    Table(
        "comparisons",
        "one row per arm, arm that it is held against and watched value: the shift of formation over seeds",
        (
            _EXPERIMENT,
            _ARM,
            Column("reference", "string", "arm that it is compared with: what it chose by, or what was matched to it"),
            _WATCHED,
            Column("pairs", "int32", "seeds of which at least one of the two runs formed", "seeds"),
            Column("bounds", "int32", "of these, with one run that did not form: their shift is a bound", "seeds"),
            Column("shift", "float64", "Hodges–Lehmann shift of formation; empty: no pair", _SHIFT, True),
            Column("lower", "float64", "lower end of its 95 % interval; empty: too few pairs", _SHIFT, True),
            Column("upper", "float64", "upper end", _SHIFT, True),
            Column("reference_step", "float64", "median step at which the reference formed", "updates", True),
            Column("relative", "float64", "shift / reference_step", "1", True),
            Column("p", "float64", "exact sign-flip test over pairs, two-sided", "1", True),
            Column(
                "p_holm", "float64", "p after Holm over all comparisons on this value: below 0.05 is a claim", "1", True
            ),
            Column("smallest_p", "float64", "smallest p that so many pairs can give", "1", True),
            Column(
                "smallest_p_holm",
                "float64",
                "that times the number of comparisons; above 0.05 nothing could have been shown",
                "1",
                True,
            ),
            Column(
                "detectable",
                "float64",
                "shift that pairs of this number and spread show with a chance of 80 %, at 5 % over all comparisons; "
                "empty: none, or they all agree",
                "updates",
                True,
            ),
            Column("p_log_rank", "float64", "log-rank test, not paired; empty: nothing formed", "1", True),
        ),
        keys=("experiment", "arm", "reference", "mechanism"),
    ),
    Table(
        "predictions",
        "one row per run that treats examples otherwise: what influence had predicted at the baseline's target step, and what"
        " came; none of a run that stopped before that step (`training.stop`), which `causal_measures` counts",
        (
            _EXPERIMENT,
            RUN,
            _ARM,
            Column("seed", "int32", "seed"),
            Column("baseline", "string", "the run of the same seed whose influence predicts"),
            STEP,
            MECHANISM,
            METHOD,
            Column("examples", "int32", "examples that are treated otherwise", "examples"),
            Column(
                "predicted",
                "float64",
                "sum of (new weight − weight) × influence over their updates before `step`",
                "unit of the mechanism",
            ),
            Column(
                "measured",
                "float64",
                "mechanism of the run minus that of the baseline at `step`",
                "unit of the mechanism",
            ),
            Column(
                "shift",
                "float64",
                "formation step of the first event minus the baseline's; of a run that did not form, at least this; empty:"
                " neither formed",
                _SHIFT,
                True,
            ),
        ),
        keys=("experiment", "arm", "seed", "mechanism"),
    ),
    Table(
        "causal_measures",
        "dose and response of an experiment's arms, and how good predictions were: one row per measure",
        (
            _EXPERIMENT,
            MECHANISM,
            Column(
                "subject",
                "string",
                "treatment and its arms in order of their dose, the first without; or `predictions by` an estimator",
            ),
            Column(
                "metric",
                "string",
                "page (trend statistic L: the more, the later), page_expected (L without effect), page_p (two-sided); of"
                " predictions: rank_correlation, slope and offset (measured = offset + slope × predicted), stopped_before (runs"
                " that stopped before `step` of their baseline and have no row in `predictions`)",
            ),
            Column("value", "float64", "the measure; empty: too few runs", "see metric", True),
            Column("lower", "float64", "lower end of its 95 % interval over seeds", "see metric", True),
            Column("upper", "float64", "upper end", "see metric", True),
            Column("n", "int32", "seeds of a trend, runs of predictions"),
        ),
        keys=("experiment", "mechanism", "subject", "metric"),
    ),
)
