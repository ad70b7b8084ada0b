"""Which data: planted differences are found, at the right end, and chance is not; seeds are compared."""

import html
from pathlib import Path

import numpy as np
import polars as pl

from mech_pipeline.data.example_tokens import ExampleTokens
from mech_pipeline.reports.contrast.contrast import Contrast
from mech_pipeline.reports.first.which_data import _large, _told
from mech_pipeline.reports.page import build_report
from mech_pipeline.reports.wording import UNKNOWN
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from tests.support.report_store import MECHANISM, RUN, demo_experiment, write, write_attribution, write_runs

N = 400
TOP = np.arange(N) < 20


def examples(**change):
    columns = {
        "example_id": [f"{i:016x}" for i in range(N)],
        "total": np.linspace(1, -1, N),
        "kind": ["plain"] * N,
        "source": ["text"] * N,
        "document": [f"d{i % 10}" for i in range(N)],
        "period": [0] * N,
        "length": [8] * N,
        "first_seen": np.random.default_rng(1).permutation(N),
        "times_seen": [1] * N,
    }
    return pl.DataFrame(columns | change)


def tokens():
    """Token 9 follows token 8 in all of the top examples and, of the others, in every tenth."""
    ids = np.random.default_rng(0).integers(0, 8, (N, 8))
    ids[TOP | (np.arange(N) % 10 == 0), 3:5] = 8, 9
    return ExampleTokens(ids, [f"t{i}" for i in range(10)])


def test_chance_is_not_taken_for_a_difference():
    found = Contrast(examples(), None)
    assert found.top.differences == found.bottom.differences == []
    assert (found.top.n, found.bottom.n) == (20, 20)


def test_what_is_planted_is_found_at_its_end_alone():
    periods = [16 if TOP[i] or i % 20 == 0 else 17 for i in range(N)]
    found = Contrast(examples(period=periods), tokens())
    (period,), (rest,) = found.top.more("period"), found.top.less("period")
    assert (period.name, period.chosen, period.everywhere, rest.name) == ("16", 20, 39, "17")
    assert period.documents == 10
    assert period.log_odds > 3 > 0 > rest.log_odds
    assert {each.name for each in found.top.more("token", "bigram")} == {'"t8"', '"t9"', '"t8t9"'}
    assert found.bottom.differences == []


def test_what_explains_most_comes_first_and_what_both_ends_have_is_taken_off():
    """A source that nearly nobody else has is the more certain difference, and explains less."""
    row = np.arange(N)
    ends = TOP | (row >= N - 20)
    found = Contrast(
        examples(
            period=np.where(TOP, row < 18, row % 3 == 0).astype(int) * 16,
            source=np.where((row < 8) | np.isin(row, (100, 200)), "rare", "text"),
            times_seen=np.where(ends | (row % 5 == 0), 3, 2),
        ),
        None,
    )
    certain, most = (found.top.more("period", "source"), found.explains_the_top("period", "source", "times_seen"))
    assert [each.name for each in certain] == ["rare", "16"]
    assert [each.name for each in most] == ["16", "rare"]
    assert [each.name for each in found.top.more("times_seen")] == ["3"], "which is left out: the bottom has it as well"
    everywhere = 18 + len([i for i in range(20, N) if i % 3 == 0])
    assert (most[0].chosen, most[0].beyond_chance) == (18, 18 - 20 * everywhere / N)
    assert _large(found) == "90 % period 16"
    assert f"period 16: 18 of 20, by chance {5 * everywhere / 20:.0f} %; that explains at most" in _told(found)
    assert "after Holm over" in _told(found)


def test_a_small_difference_is_no_answer_but_is_told():
    """The source has more of the top than chance gives, by less than a tenth of it."""
    n, row = 4000, np.arange(4000)
    change = {
        "example_id": [f"{i:016x}" for i in row],
        "total": np.linspace(1, -1, n),
        "source": np.where((row < 18) | (row == 999), "rare", "text"),
    }
    columns = {"kind": "plain", "document": "d", "period": 0, "length": 8, "times_seen": 1}
    frame = pl.DataFrame(change | {name: [value] * n for name, value in columns.items()} | {"first_seen": row % 24})
    found = Contrast(frame, None)
    assert _large(found) == "no single kind"
    assert "source rare: 18 of 200, by chance 0 %; that explains at most 9 % of them" in _told(found)
    assert _large(Contrast(examples(), None)) == UNKNOWN
    assert _told(Contrast(examples(), None)).startswith("no content that was compared tells them from the others.")


def test_order_of_training_is_a_characteristic():
    found = Contrast(examples(first_seen=list(range(N))), None)
    assert found.top.more("first_seen")[0].name == "0–79"
    assert found.bottom.more("first_seen")[0].name.endswith("–399")


def test_a_token_of_one_kind_is_no_difference_of_its_own_within_that_kind():
    """The top is all of one kind, whose examples all have the pair; the kind is named, the pair is not."""
    ids = tokens().ids.copy()
    kinds = np.arange(N) < 100
    ids[:, 3:5] = 0, 0
    ids[kinds, 3:5] = 8, 9
    found = Contrast(examples(kind=np.where(kinds, "names", "plain")), ExampleTokens(ids, tokens().pieces))
    assert [each.name for each in found.top.more("kind")] == ["names"]
    assert not {'"t8t9"', '"t9"'} & {each.name for each in found.top.more("token", "bigram")}


def test_seeds_that_have_an_account_are_compared(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_runs(store)
    write_attribution(store)
    other = RUN.replace("s0", "s1")
    rows = [(30, 0, "example", f"x{i:02d}", "embedding", float(i), 0.0, other, MECHANISM) for i in range(3)]
    columns = ("step", "update_step", "term", "example_id", "component", "value", "value_later", "run", "mechanism")
    write(store, "ledger", columns, rows, run=[other])
    with connect(store.root) as opened:
        page = html.unescape(build_report(opened, demo_experiment()).html)
    assert "Do seeds name the same examples?" in page
    # x02 is first in both; x00 is before x01 in one and after it in the other.
    assert '<td class="number">1 of 1 (100 %)</td><td class="number">33 %</td>' in page
    assert '<td class="number">+0.50</td>' in page
