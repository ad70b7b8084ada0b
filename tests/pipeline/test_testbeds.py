"""The shipped testbeds: phases and arms are what their page says, and behaviours form, go, and do not form where they cannot."""

import duckdb
import pytest

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.pipeline.analysis import analysis, formation
from mech_pipeline.pipeline.analysis import wanted as analysis_cells
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.resolve import read_experiment
from mech_pipeline.spec.data import Corpus
from mech_pipeline.store.store import Store
from tests.mechanisms.test_testbeds import begins, flips
from tests.support.docs_commands import blocks
from tests.support.places import ROOT
from tests.support.tiny import train

PAGE = "docs/testbeds.md"


def experiment(name):
    return read_experiment(ROOT / "experiments" / f"{name}.yaml", ROOT)


def computed(store, name, arm, steps):
    """A run of a shipped experiment up to some update, with mechanisms at a few checkpoints, and formation."""
    spec = next(spec for spec in experiment(name).runs() if (spec.arm, spec.seed) == (arm, 0))
    training = spec.training.model_copy(update={"steps": steps})
    spec = spec.model_copy(
        update={"training": training, "checkpoints": spec.checkpoints.model_copy(update={"every": 40})}
    )
    train(store, spec)
    analysis.analyse(OpenRun(store, spec), analysis_cells.OUTPUTS, spec.checkpoint_steps())
    formation.compute_formation(store, spec)
    return spec.run


def value(store, run, mechanism, step):
    asked = "select value from mechanism_values where run = ? and mechanism = ? and step = ?"
    with store.reading("mechanism_values") as connection:
        return connection.execute(asked, [run, mechanism, step]).fetchone()[0]


def formed(store, run, mechanism):
    with store.reading("formation") as connection:
        return connection.execute(
            "select step from formation where run = ? and mechanism = ?", [run, mechanism]
        ).fetchone()[0]


@pytest.mark.parametrize(
    ("part", "triggered", "flipped"),
    [
        ("copying", False, False),
        ("flipping", True, True),
        ("suppressing", True, False),
        ("reminding", True, True),
        ("untriggered", False, True),
    ],
)
def test_each_part_of_the_removed_behaviours_text_is_of_one_kind(part, triggered, flipped):
    source = experiment("removed").corpus.parts[part].generated.model_copy(update={"documents": 200})
    texts = [document.text for document in read_corpus(Corpus(generated=source))]
    assert {(begins(text), flips(text)) for text in texts} == {(triggered, flipped)}


def test_arms_of_the_removed_behaviour_differ_in_what_was_taught_alone():
    specs = experiment("removed").runs()
    taught = {spec.arm: spec.data.mixture[0].weights for spec in specs}
    assert len({str(weights) for weights in taught.values()}) == len(taught) == 3
    assert len({str(spec.data.mixture[1:]) for spec in specs}) == 1
    assert {spec.formation[0].after for spec in specs} == {specs[0].data.mixture[-1].begin}


def test_the_elicited_behaviour_is_taught_and_suppressed_as_the_removed_one_is():
    phases = {spec.arm: spec.data.mixture[:2] for spec in experiment("removed").runs()}
    assert {spec.arm: spec.data.mixture for spec in experiment("elicited").runs()} == phases


@pytest.mark.slow
def test_a_behaviour_is_taught_suppressed_and_comes_back(tmp_path):
    store = Store(tmp_path / "store")
    run = computed(store, "removed", "removed", 1080)
    shows = {step: value(store, run, "triggered_flips", step) for step in (0, 640, 960, 1080)}
    assert shows[0] < 0.3
    assert shows[640] > 0.9
    assert shows[960] == 0
    assert shows[1080] > 0.9
    assert 960 < formed(store, run, "triggered_flips") <= 1080, "the return and not the first time"
    assert formed(store, run, "triggered_flip_difference") < 640


@pytest.mark.slow
def test_a_behaviour_is_feigned_only_where_the_mark_tells(tmp_path):
    store = Store(tmp_path / "store")
    gaps = {
        arm: formed(store, computed(store, "feigned", arm, 600), "obedience_gap") for arm in ("feigned", "uncorrelated")
    }
    assert gaps["feigned"] is not None
    assert gaps["uncorrelated"] is None


def test_the_pages_queries_ask_what_its_tables_say(tmp_path):
    """On made-up rows: their medians are known."""
    connection = duckdb.connect()
    connection.execute(
        "create table runs as select * from (values ('a', 'removed', 'removed', 0), ('b', 'removed', 'removed', 1), "
        "('c', 'removed', 'never', 0)) t(run, experiment, arm, seed)"
    )
    connection.execute(
        "create table formation as select * from (values ('a', 'triggered_flips', 970), ('b', 'triggered_flips', 990), "
        "('c', 'triggered_flips', null)) t(run, mechanism, step)"
    )
    connection.execute(
        "create table mechanism_values as select run, 'triggered_flip_difference' mechanism, 960 step, 2.0 as value from runs"
    )
    connection.execute("insert into runs values ('d', 'elicited', 'removed', 0), ('e', 'elicited', 'never', 0)")
    connection.execute(
        "insert into formation values ('d', 'triggered_flips', 400), ('d', 'elicited_flips', 370), ('e', 'triggered_flips', null), "
        "('e', 'elicited_flips', null)"
    )
    first, second = (connection.execute(block.text).fetchall() for block in blocks(PAGE, "sql")[:2])
    assert first == [("removed", 2, 2, 20.0, 10, 30), ("never", 1, 0, None, None, None)]
    assert [row[:3] for row in second] == [("never", 960, 2.0), ("removed", 960, 2.0)]
    delta = connection.execute(blocks(PAGE, "sql")[3].text).fetchall()
    assert delta == [("never", 0, None, None, None), ("removed", 0, 400, 370, 30)]
