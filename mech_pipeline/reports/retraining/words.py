"""What retraining did to a prediction, in sentences: the same in the terminal, in the report's answer and in the UI."""

import polars as pl

from mech_pipeline.reports.wording import interval, number, percent, plus_minus


def proof_sentences(measures: pl.DataFrame, unit: str) -> list[str]:
    """One sentence per share and estimator on random removals, and one on the examples of most influence.

    Args:
        measures: rows of `effects.lds_measures` on one mechanism.
        unit: of the mechanism.
    """
    sentences = []
    for (method, fraction), rows in measures.group_by(["method", "fraction"], maintain_order=True):
        found = dict(rows.select("metric", "value").rows())
        share = percent(float(str(fraction)))
        for row in rows.filter(metric="lds").iter_rows(named=True):
            score = interval(row["value"], row["lower"], row["upper"])
            sentences.append(
                f"Retrained without random {share} of the examples, {row['n']} times: LDS of {method} {score}."
            )
        if "query_loss_difference" in found:
            sentences.append(_without_the_top(found, str(method), share, unit))
    return sentences


def _without_the_top(found: dict[str, float], method: str, share: str, unit: str) -> str:
    """Predicted against happened, beside random sets of the same size."""
    pair = _pair(found.get("predicted_difference"), found["query_loss_difference"], unit)
    sentence = f"Retrained without the {share} of most influence by {method}: {pair}"
    if "query_loss_z" in found:
        random = plus_minus(found["measured_mean"], found.get("measured_spread"))
        sentence += f", {number(abs(found['query_loss_z']), 2)} standard deviations from random sets ({random} {unit})"
    if "matched_difference" in found:
        pair = _pair(found.get("matched_predicted"), found["matched_difference"], unit)
        sentence += f"; without as many random examples of the same kinds: {pair}"
    return f"{sentence}."


def _pair(predicted: float | None, happened: float, unit: str) -> str:
    return f"predicted {number(predicted)} {unit}, happened {number(happened)}"
