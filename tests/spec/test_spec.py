"""Specs: mistakes are named before anything is computed; fingerprints hold what a stage depends on and no more."""

import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.resolve import corpus_hashes, known_names, read_experiment, resolve
from mech_pipeline.spec.experiment import Experiment, load_experiment, parse_experiment
from mech_pipeline.spec.fingerprint import canonical_json, fingerprint
from mech_pipeline.spec.run import check_run_id
from tests.support.places import ROOT
from tests.support.tiny import MINIMAL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": [1]}, r"unknown field 'sedes' \(value \[1\]\); did you mean 'seeds'\? allowed: .*arms.*corpus"),
        ({"data": {"contxt": 3}}, r"unknown field 'data.contxt' \(value 3\); did you mean 'context'"),
        ({"arms": {"a": {"data": {"contxt": 3}}}}, r"unknown field 'data.contxt'"),
        ({"arms": {"a": {"optimiser": {}}}}, r"unknown field 'arms.a.optimiser'.* did you mean 'optimizer'"),
        ({"mechanisms": ["induktion"]}, r"name 'induktion'; did you mean 'induction_copy_advantage' or .* allowed: "),
        (
            {"ledger": {"mechanisms": ["previous_token_attention"]}},
            "ledger.mechanisms: unknown name 'previous_token_attention'; allowed",
        ),
        (
            {"ledger": {"mechanisms": ["induction_copy_advantage"], "seeds": [7]}},
            r"seed 7 is not trained; allowed: \[0\] or all",
        ),
        (
            {"ledger": {"mechanisms": ["induction_copy_advantage"], "arms": ["b"]}},
            "unknown arm 'b'; allowed: baseline or all",
        ),
        (
            {"formation": [{"mechanism": "induction_copy_advantage", "threshold": 1.0, "after": 9000}]},
            "formation: induction_copy_advantage counts from step 9000 on, and run .* ends at",
        ),
        ({"corpus": {}}, "name exactly one source"),
        ({"corpus": {"python_stdlib": True, "files": "*"}}, "name exactly one source"),
        ({"data": {"plain": 0.9}}, r"plain \(0.9\) and tiled \(0.75\) are shares and must sum to 1"),
        ({"data": {"context": 16}}, "tile_tokens goes up to 32"),
        ({"model": {"d_model": 10, "heads": 4}}, r"d_model \(10\) is not a multiple of heads \(4\)"),
        ({"optimizer": {"kind": "adm"}}, r"optimizer.kind = 'adm': Input should be 'adamw', 'adam', 'sgd' or 'muon'"),
        ({"optimizer": {"learning_rate": -1}}, r"optimizer.learning_rate = -1: .*greater than 0"),
        ({"experiment": "a|b"}, r"experiment = 'a\|b'"),
        ({"arms": {"a|b": {}}}, r"run id 'x.a\|b.s0' has characters"),
        ({"formation": [{"threshold": 1}]}, "watches exactly one of `mechanism` or `detector`"),
        ({"formation": MINIMAL["formation"] * 2}, "induction_copy_advantage is watched twice"),
        ({"seeds": [1, 1]}, "seeds must be one or more distinct"),
    ],
)
def test_a_mistake_names_field_value_and_what_is_allowed(change, message):
    with pytest.raises(MechError, match=message) as caught:
        parse_experiment(MINIMAL | change, names=known_names())
    assert "\n" not in str(caught.value)


def test_the_shipped_experiments_are_valid_and_have_enough_checkpoints():
    for path in (ROOT / "experiments").glob("*.yaml"):
        few = path.stem in ("trigger_causes", "elicited")  # the grid of trigger.yaml; one that is dense where it forms
        for spec in read_experiment(path, ROOT).runs():
            least = 8 if path.stem == "discovery_nulls" else 30 if spec.signals or spec.discovery.asks or few else 60
            assert len(spec.checkpoint_steps()) >= least, "of hundreds of runs fewer are kept"


def test_missing_files_and_broken_yaml_are_named(tmp_path):
    (tmp_path / "near.yaml").write_text("a: [")
    with pytest.raises(MechError, match=r"does not exist → did you mean .near\.yaml.\? there is .*near\.yaml"):
        load_experiment(tmp_path / "none.yaml")
    with pytest.raises(MechError, match="is not YAML"):
        load_experiment(tmp_path / "near.yaml")


@pytest.mark.parametrize("bad", ["a|b", "a,b", "a...b", "", "-a", "a b", "ä", "a/b", "..", "a\n"])
def test_run_ids_that_partitions_cannot_carry_are_refused(bad):
    with pytest.raises(MechError, match="characters that partitions and paths cannot carry"):
        check_run_id(bad)


def test_arms_override_stages_key_by_key():
    experiment = parse_experiment(
        MINIMAL | {"seeds": [3, 4], "arms": {"a": {}, "b": {"optimizer": {"clip_norm": None}, "seeds": [9]}}}
    )
    assert [spec.run for spec in experiment.runs()] == ["x.a.s3", "x.a.s4", "x.b.s9"]
    last = experiment.runs()[-1]
    assert last.optimizer.clip_norm is None
    assert last.optimizer.learning_rate == experiment.optimizer.learning_rate


def only(**change):
    return parse_experiment(MINIMAL | change).runs()[0]


def test_stage_fingerprints_hold_what_the_stage_depends_on_and_no_more():
    base = only()
    threshold = only(formation=[{"mechanism": "induction_copy_advantage", "threshold": 9}])
    assert threshold.tokens_slice() == base.tokens_slice()
    assert threshold.training_slice() == base.training_slice()
    longer = only(training={"steps": 5000}, checkpoints={"every": 7})
    assert longer.training_slice() == base.training_slice()
    for change in (
        {"optimizer": {"beta1": 0.8}},
        {"model": {"layers": 3}},
        {"training": {"threads": 2}},
        {"seeds": [1]},
    ):
        assert only(**change).training_slice() != base.training_slice()
    assert only(data={"examples": 5}).tokens_slice() != base.tokens_slice()


def test_checkpoint_grid_holds_ends_dense_windows_and_extras():
    spec = only(
        training={"steps": 100},
        checkpoints={"every": 40, "dense_every": 5, "dense": [[0, 10], [90, 500]], "extra": [33, 700]},
    )
    assert spec.checkpoint_steps() == (0, 5, 10, 33, 40, 80, 90, 95, 100)


def test_fingerprints_refuse_what_has_no_canonical_form():
    assert fingerprint({"a": 1, "b": [1.5, None]}) == fingerprint({"b": [1.5, None], "a": 1})
    assert canonical_json({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'
    for bad in ({1, 2}, b"x", object()):
        with pytest.raises(TypeError):
            fingerprint(bad)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="finite"):
            fingerprint(bad)


def test_an_experiment_is_checked_without_looking_at_files_and_resolved_once():
    """No file is there, and no mechanism of that name: both are for `resolve` to find out."""
    files = {"data": {"weights": "none.csv"}, "tokenizer": {"file": "none.json"}}
    assert parse_experiment(MINIMAL | files).runs()[0].data.weights == "none.csv"
    unknown = {"mechanisms": ["mine"], "formation": [{"mechanism": "mine", "threshold": 1}]}
    assert parse_experiment(MINIMAL | unknown).runs()[0].mechanisms == ("mine",)
    with pytest.raises(MechError, match=r"file\.yaml: experiment: mechanisms: unknown name 'mine'; allowed: "):
        resolve(parse_experiment(MINIMAL | unknown), source="file.yaml")


def test_a_run_whose_files_were_not_read_has_no_fingerprint(tmp_path):
    (tmp_path / "weights.csv").write_text("example_id,weight\n")
    experiment = parse_experiment(MINIMAL | {"data": {"weights": "weights.csv"}})
    (spec,) = experiment.runs()
    for identity in (spec.tokens_slice, spec.training_slice, lambda: spec.fingerprint("0" * 64)):
        with pytest.raises(
            MechError, match=r"content of data.weights \(weights.csv\) is not known yet → take its runs"
        ):
            identity()
    (resolved,) = resolve(experiment, tmp_path).runs()
    assert len(resolved.data.weights_sha256) == 64
    assert resolved.fingerprint("0" * 64) != only().fingerprint("0" * 64)


def test_names_of_files_begin_at_the_project_and_its_place_changes_no_fingerprint(tmp_path):
    experiment = parse_experiment(
        MINIMAL | {"corpus": {"files": "text/*.txt"}, "data": {"weights": "weights.csv"}, "seeds": [0, 1]}
    )
    found = []
    for name in ("here", "there"):
        home = tmp_path / name
        (home / "text").mkdir(parents=True)
        (home / "text" / "a.txt").write_text("some text")
        (home / "weights.csv").write_text("example_id,weight\n")
        found.append(resolve(experiment, home))
        assert {spec.home for spec in found[-1].runs()} == {home}
    assert [e.runs()[0].fingerprint("0" * 64) for e in found] == [found[0].runs()[0].fingerprint("0" * 64)] * 2
    assert found[0].runs() == found[1].runs()
    assert corpus_hashes(found[0].runs()) == corpus_hashes(found[1].runs())
    assert fingerprint(found[0]) == fingerprint(experiment), (
        "a report is made from what is asked, not from where it lies"
    )
    assert isinstance(found[0], Experiment)
    (tmp_path / "there" / "text" / "a.txt").write_text("other text")
    assert len({*corpus_hashes(found[0].runs()).values(), *corpus_hashes(found[1].runs()).values()}) == 2


def test_a_resolved_experiment_reads_nothing_again(tmp_path):
    (tmp_path / "weights.csv").write_text("example_id,weight\n")
    resolved = resolve(parse_experiment(MINIMAL | {"data": {"weights": "weights.csv"}}), tmp_path)
    (tmp_path / "weights.csv").unlink()
    assert resolved.runs() is resolved.runs()
    assert resolved.runs()[0].data.weights_sha256


def test_a_value_that_goes_on_and_on_is_not_repeated_whole():
    change = {"checkpoints": {"every": 6, "adaptive": {"mechanism": "x" * 5000}}}
    with pytest.raises(MechError, match="checkpoints.adaptive") as caught:
        parse_experiment(MINIMAL | change, names=known_names())
    assert len(str(caught.value)) < 1000
