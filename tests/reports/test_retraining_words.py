"""What retraining did to a prediction, in sentences."""

import polars as pl

from mech_pipeline.reports.retraining.words import proof_sentences

MEASURES = {
    "lds": (0.9, 0.5, 1.0, 8),
    "measured_mean": (-0.25, None, None, 8),
    "measured_spread": (0.125, None, None, 8),
    "predicted_difference": (-3.0, None, None, 1),
    "query_loss_difference": (-1.5, None, None, 1),
    "query_loss_z": (-10.0, None, None, 8),
    "matched_difference": (-0.5, None, None, 1),
    "matched_predicted": (0.25, None, None, 1),
}


def measures(*names):
    rows = [("m", "adjoint", 0.05, name, *MEASURES[name]) for name in names]
    columns = ["mechanism", "method", "fraction", "metric", "value", "lower", "upper", "n"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def test_predicted_stands_beside_what_happened():
    random, top = proof_sentences(measures(*MEASURES), "nats")
    assert random == "Retrained without random 5 % of the examples, 8 times: LDS of adjoint 0.90 [0.50, 1.00]."
    assert top == (
        "Retrained without the 5 % of most influence by adjoint: predicted -3 nats, happened -1.5, 10 standard deviations from "
        "random sets (-0.25 ± 0.125 nats); without as many random examples of the same kinds: predicted 0.25 nats, happened -0.5."
    )


def test_what_was_not_measured_is_not_spoken_of():
    assert proof_sentences(measures(), "nats") == []
    (only,) = proof_sentences(measures("query_loss_difference"), "nats")
    assert only == "Retrained without the 5 % of most influence by adjoint: predicted – nats, happened -1.5."
