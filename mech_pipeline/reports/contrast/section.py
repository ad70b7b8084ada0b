"""The report's section on which data: what the examples at both ends of an account have more or less often than all.

Per mechanism and account it shows the first run that has one; under it, whether seeds name the same examples.
"""

from dataclasses import dataclass

from mech_pipeline.reports.contrast.agreement import Agreement, agreements
from mech_pipeline.reports.contrast.contrast import Contrast, Difference, End
from mech_pipeline.reports.contrast.queries import example_totals
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Account, Study, Subject
from mech_pipeline.reports.wording import UNKNOWN, number, percent

SHOWN = 8
"""Differences of a family at an end; all are counted."""
_BOUND = 1e-7
FAMILIES = {
    "characteristics": ("kind", "source", "document", "period", "length", "first_seen", "times_seen"),
    "tokens": ("token",),
    "pairs of tokens": ("bigram",),
}


@dataclass(frozen=True)
class EndPart:
    """One end in words: a list of (heading, rows, how many more there are)."""

    title: str
    summary: str
    groups: list[tuple[str, list[dict[str, str]], int]]


@dataclass(frozen=True)
class ContrastPart:
    """Both ends of one account of one mechanism."""

    title: str
    n: int
    ends: list[EndPart]
    has_tokens: bool


def contrast_of(study: Study, subject: Subject, account: Account) -> Contrast:
    """The contrast, made once for all sections."""

    def make() -> Contrast:
        examples = example_totals(study.connection, subject, account)
        return Contrast(examples, study.tokens(subject.run, examples["example_id"].to_list()))

    return study.once(("contrast", subject, account), make)


def contrast(study: Study) -> Section:
    """The ledger first, because it is exact; then influence."""
    accounts: list[tuple[Account, Subject]] = [("ledger", each) for each in study.ledgers]
    accounts += [("influence", each) for each in study.influences]
    parts = [_part(study, subject, account) for account, subject in accounts]
    context = {"parts": parts, "agreements": [_agreement(each) for each in agreements(study)]}
    return Section("data", "Which data", "contrast/section.html", context, empty=not parts)


def _part(study: Study, subject: Subject, account: Account) -> ContrastPart:
    found = contrast_of(study, subject, account)
    what = {"ledger": "By ledger (what happened)", "influence": "By influence (what would happen)"}[account]
    return ContrastPart(
        f"{what}: {subject.title}",
        len(found.examples),
        [_end("largest", found.top), _end("smallest", found.bottom)],
        found.tokens is not None,
    )


def _end(which: str, end: End) -> EndPart:
    sign = {"largest": "positive", "smallest": "negative"}[which]
    summary = f"{percent(end.share_of_sign)} of all {sign} totals; {end.tested:,} features compared."
    groups = []
    for heading, families in FAMILIES.items():
        for word, rows in (("more often", end.more(*families)), ("less often", end.less(*families))):
            shown = [_row(each) for each in rows[:SHOWN]]
            groups.append((f"{heading}, {word}", shown, len(rows) - len(shown)))
    return EndPart(
        f"The 5 % with the {which} totals ({end.n:,} examples)", summary, [each for each in groups if each[1]]
    )


def _row(found: Difference) -> dict[str, str]:
    return {
        "name": found.name if found.family in ("token", "bigram") else in_words(found),
        "expected": number(found.expected),
        "log_odds": f"{found.log_odds:+.2f}",
        "rate": f"{found.chosen:,} of {found.everywhere:,} ({100 * found.chosen / found.everywhere:.1f} %)",
        "documents": f"{found.documents:,}",
        "p": p_value(found.p),
    }


def in_words(found: Difference) -> str:
    """A characteristic with its name: `kind plain`, `first seen in updates 0–170`."""
    what = {"first_seen": "first seen in updates", "times_seen": "times seen:"}
    return f"{what.get(found.family, found.family)} {found.name}"


def p_value(p: float) -> str:
    """A p with one digit, or a bound: what is smallest of all times the number of tests is not told from less.

    >>> p_value(0.0312), p_value(6e-9)
    ('0.03', '< 1e-07')
    """
    return f"< {_BOUND:.0e}" if p < _BOUND else f"{p:.1g}"


def _agreement(found: Agreement) -> dict[str, str]:
    top = found.top
    return {
        "account": found.account,
        "mechanism": found.first.mechanism,
        "runs": f"{found.first.run} (step {found.first.target:,}), {found.second.run} (step {found.second.target:,})",
        "n": f"{top.n:,}",
        "shared": f"{top.shared:,} of {top.top:,} ({percent(top.share)})",
        "chance": percent(top.by_chance),
        "p": p_value(top.p),
        "correlation": UNKNOWN if top.correlation is None else f"{top.correlation:+.2f}",
    }
