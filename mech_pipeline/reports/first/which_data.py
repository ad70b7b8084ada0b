"""Which data made it? What explains most of the top 5 % of examples, beyond chance; ledger first, then influence.

Explained is what the top has more often than chance gives, as a share of the top: 96 % where chance gives 75 % explain 21 %.
"""

from mech_pipeline.attribution.retraining.trust import Trust, trust
from mech_pipeline.reports.contrast.contrast import Contrast, Difference
from mech_pipeline.reports.contrast.section import contrast_of, in_words, p_value
from mech_pipeline.reports.first.card import Card, Line
from mech_pipeline.reports.subject import Account, Study
from mech_pipeline.reports.wording import UNKNOWN, percent

_CONTENT = ("kind", "source", "document", "period", "length", "token", "bigram")
_ORDER = ("first_seen", "times_seen")
_SHOWN = 3
_LEAST = 0.1
"""What explains less of the top is not given as the answer."""


def which_data(study: Study) -> Card:
    """A share of the top 5 % beside what chance gives, and how much of the top that explains."""
    accounts: list[Account] = ["ledger", "influence"]
    lines, large = list[Line](), UNKNOWN
    for account in accounts:
        for subject in (study.ledgers if account == "ledger" else study.influences)[:1]:
            found = contrast_of(study, subject, account)
            large = _large(found) if large == UNKNOWN else large
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


def _large(found: Contrast) -> str:
    first = next(iter(found.explains_the_top(*_CONTENT)), None)
    if first is None:
        return UNKNOWN
    if first.beyond_chance < _LEAST * found.top.n:
        return "no single kind"
    return f"{percent(first.chosen / found.top.n)} {_name(first)}"


def _name(found: Difference) -> str:
    return f"with {found.name}" if found.family in ("token", "bigram") else in_words(found)


def _told(found: Contrast) -> str:
    top, rows, order = found.top, found.explains_the_top(*_CONTENT)[:_SHOWN], found.explains_the_top(*_ORDER)[:1]
    carried = f"They carry {percent(top.share_of_sign)} of all positive contributions."
    if not rows:
        return " ".join(["no content that was compared tells them from the others.", *_beside(found, order), carried])
    first, p = rows[0], p_value(rows[0].p)
    sentence = (
        f"{_name(first)}: {first.chosen:,} of {top.n:,}, by chance {percent(first.expected / top.n)}; that explains at most "
        f"{percent(first.beyond_chance / top.n)} of them (log-odds {first.log_odds:+.1f}, p {p if p[0] == '<' else f'= {p}'} "
        f"after Holm over {top.tested:,} features)."
    )
    return " ".join([sentence, *_beside(found, rows[1:] + order), carried])


def _beside(found: Contrast, rows: list[Difference]) -> list[str]:
    """Further differences, in a sentence."""
    n = found.top.n
    parts = [f"{_name(each)}: {percent(each.chosen / n)} (by chance {percent(each.expected / n)})" for each in rows]
    return [f"Also {', '.join(parts)}."] if parts else []
