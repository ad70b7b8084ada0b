"""Which data made it? The most certain difference between the top 5 % and all examples; ledger first, then influence."""

from mech_pipeline.attribution.retraining.trust import Trust, trust
from mech_pipeline.reports.contrast.contrast import Contrast, Difference
from mech_pipeline.reports.contrast.section import FAMILIES, contrast_of, in_words
from mech_pipeline.reports.first.card import Card, Line
from mech_pipeline.reports.subject import Account, Study
from mech_pipeline.reports.wording import UNKNOWN, percent

_TOKENS = 3


def which_data(study: Study) -> Card:
    """A share of the top 5 % beside the share of all examples, and what else tells them apart."""
    accounts: list[Account] = ["ledger", "influence"]
    lines, large = list[Line](), UNKNOWN
    for account in accounts:
        for subject in (study.ledgers if account == "ledger" else study.influences)[:1]:
            found = contrast_of(study, subject, account)
            first = _first(found)
            if large == UNKNOWN and first is not None:
                large = f"{percent(first.chosen / found.top.n)} {_name(first)}"
            badge, good = (
                ("exact", True)
                if account == "ledger"
                else verdict(trust(study.connection, subject.run, subject.target, subject.mechanism))
            )
            lines.append(Line(f"Top 5 % by {account}: {_told(found)}", badge, good))
    return Card("Which data?", large, "data", lines or [Line("There is neither a ledger nor an influence yet.")])


def verdict(found: Trust) -> tuple[str, bool | None]:
    """The badge of an influence."""
    word = {True: "confirmed" if found.retrained else "within limits", False: "a hint", None: "not measured"}
    return word[found.reliable], found.reliable


def _first(found: Contrast) -> Difference | None:
    more = found.more_at_the_top(*FAMILIES["characteristics"]) or found.more_at_the_top("token", "bigram")
    return more[0] if more else None


def _name(found: Difference) -> str:
    return f"with {found.name}" if found.family in ("token", "bigram") else in_words(found)


def _told(found: Contrast) -> str:
    n, top = len(found.examples), found.top
    rows = found.more_at_the_top(*FAMILIES["characteristics"])[:2]
    parts = [f"{percent(each.chosen / top.n)} {_name(each)} (of all {percent(each.everywhere / n)})" for each in rows]
    tokens = found.more_at_the_top("token", "bigram")[:_TOKENS]
    if tokens:
        parts.append("more often with " + ", ".join(each.name for each in tokens))
    what = "; ".join(parts) or "nothing that was compared tells them from the others"
    return f"{what}. They carry {percent(top.share_of_sign)} of all positive contributions."
