"""How sure? Whether the ledger adds up, whether retraining confirms influence, whether seeds agree."""

from mech_pipeline.attribution.retraining.effects import lds_measures
from mech_pipeline.attribution.retraining.trust import trust
from mech_pipeline.reports.contrast.agreement import agreements
from mech_pipeline.reports.first.card import Card, Line
from mech_pipeline.reports.first.which_data import verdict
from mech_pipeline.reports.ledger.queries import balance
from mech_pipeline.reports.ledger.section import BALANCED_WITHIN
from mech_pipeline.reports.subject import Study
from mech_pipeline.reports.wording import UNKNOWN, interval, number, percent, signal_unit


def how_sure(study: Study) -> Card:
    """The part of the change that the ledger explains, then influence and seeds."""
    lines, large = list[Line](), UNKNOWN
    for row in balance(study.connection, study.runs).iter_rows(named=True):
        if row["mechanism"] not in study.experiment.mechanisms or large != UNKNOWN:
            continue
        balanced = abs(row["explained"] - row["change"]) <= BALANCED_WITHIN * row["gross"]
        large = f"{100 * row['explained'] / row['change']:.4g} % explained" if row["change"] else "no change"
        lines.append(
            Line(
                f"Ledger of {row['run']}: {row['explained']:+.6g} of {row['change']:+.6g} {signal_unit(row['mechanism'])} "
                f"in {row['n_partitions']} windows (relative imbalance {number(row['imbalance'], 2)}).",
                "balances" if balanced else "does not balance",
                balanced,
            )
        )
    for subject in study.influences[:1]:
        found = trust(study.connection, subject.run, subject.target, subject.mechanism)
        scores = lds_measures(study.connection, subject.run, subject.target)
        scores = scores.filter(mechanism=subject.mechanism, metric="lds", method="adjoint")
        lds = "; ".join(
            f"LDS {interval(row['value'], row['lower'], row['upper'])} in {row['n']} retrainings without "
            f"{100 * row['fraction']:g} %"
            for row in scores.iter_rows(named=True)
        )
        large = f"LDS {scores['value'][0]:.2f}" if large == UNKNOWN and scores.height else large
        lines.append(Line(f"Influence: {found.sentence}{f' {lds}.' if lds else ''}", *verdict(found)))
    for pair in agreements(study)[:1]:
        top = pair.top
        lines.append(
            Line(
                f"Seeds {pair.first.run.rsplit('.', 1)[1]} and {pair.second.run.rsplit('.', 1)[1]} share "
                f"{percent(top.share)} of their top 5 % by {pair.account} (by chance {percent(top.by_chance)})."
            )
        )
    return Card("How sure?", large, "ledger", lines or [Line("Nothing has been attributed yet.")])
