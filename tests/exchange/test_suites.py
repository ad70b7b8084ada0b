"""Suites of checkpoints that were trained elsewhere: every stage that needs weights alone works, the others say what they lack."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.errors import MechError
from mech_pipeline.exchange.bundle.bring_back import bring_back
from mech_pipeline.exchange.bundle.export import Wish, export
from mech_pipeline.exchange.suites.layouts import LAYOUTS
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.pipeline import alone
from mech_pipeline.pipeline.plan import Plan
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.imported import Imported
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support.tiny import TINY

pytestmark = pytest.mark.usefixtures("folder")
STEPS = (0, 1, 16, 1000)
ASKED = {"gradients": [], "influence": {}, "seeds": [0], "arms": {"baseline": {}}}
ASKED |= {"formation": [{"mechanism": "induction_copy_advantage", "threshold": 9.0, "sustain": 2}]}
COMMIT = "0123456789abcdef0123456789abcdef{:08d}"


class Logits(torch.nn.Module):
    """A model of `transformers` that gives logits and nothing else."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, tokens):
        return self.model(tokens).logits


def config(**change):
    """A small relative of Pythia, with what its config.json sets otherwise than the defaults here."""
    return GPTNeoXConfig(
        **{
            "vocab_size": 300,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
            "layer_norm_eps": 1e-4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
        }
        | change
    )


def revision(folder, step, **save):
    """One state, as `transformers` saves it; in half precision, as Pythia's are."""
    torch.manual_seed(step)
    GPTNeoXForCausalLM(config()).to(torch.float16).save_pretrained(folder, **save)


def suite(place, steps=STEPS, name="step{}", **save):
    for step in steps:
        revision(place / name.format(step), step, **save)
    return place


def cached(place, steps=STEPS):
    """The same in the local cache of the hub: references name commits, commits hold links to files."""
    for step in steps:
        commit = COMMIT.format(step)
        revision(place / "snapshots" / commit, step)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / f"step{step}").write_text(commit)
    (place / "refs" / "main").write_text(COMMIT.format(steps[-1]))
    return place


def experiment_of(place, layout="folder", **change):
    asked = {"imported": {"layout": layout, "place": str(place)} | change.pop("imported", {})}
    written = {
        name: value for name, value in TINY.items() if name not in ("model", "checkpoints", "training", "optimizer")
    }
    return resolve(parse_experiment(written | ASKED | asked | change))


def computed(store, experiment):
    corpora = {spec.run: corpus_sha256(read_corpus(spec.corpus)) for spec in experiment.runs()}
    return alone.compute_all(store, experiment.runs(), corpora, experiment), corpora


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["folder", "huggingface"])
def test_every_stage_that_needs_weights_alone_works(local_store, tmp_path, layout):
    place = suite(tmp_path / "suite") if layout == "folder" else cached(tmp_path / "models--who--suite")
    experiment = experiment_of(place, layout)
    done, corpora = computed(local_store, experiment)
    assert {"spec", "training", "analysis", "formation", "report"} <= {stage for stage, _ in done}
    rows = query(local_store.root, "select step, moments, bytes from checkpoints order by step").rows()
    assert [(step, moments) for step, moments, _ in rows] == [(step, "absent") for step in STEPS]
    assert max(size for *_, size in rows) < 1000, "weights stay where they are"
    values = query(local_store.root, "select step, mechanism, value from mechanism_values order by all")
    assert values["step"].unique().to_list() == list(STEPS)
    plan = Plan(local_store, experiment.runs(), corpora, experiment)
    plan.look()
    (refused,) = plan.refused("tiny.baseline.s0").values()
    assert refused.startswith("needs moments and order and pool, which the checkpoints of run tiny.baseline.s0")
    assert verify_store(local_store.files).damage == []
    assert computed(local_store, experiment)[0] == [], "a second run finds everything there"
    (caveats,) = query(local_store.root, "select caveats from runs").row(0)
    assert "trained elsewhere" in caveats


@pytest.mark.slow
def test_what_tokens_need_is_looked_for_in_weights_alone(local_store, tmp_path):
    """Movement of tokens needs the updates; what they need does not."""
    asked = {"tokens": 40, "smallest": 3, "arms": "all", "seeds": "all"}
    experiment = experiment_of(suite(tmp_path / "suite", range(6)), discovery=asked | {"by": "needs"})
    done, corpora = computed(local_store, experiment)
    assert ("discovery", "tiny.baseline.s0") in done
    looked = query(local_store.root, "select count(*), min(loss_last) from discovery_tokens").row(0)
    assert looked[0] >= 1
    assert looked[1] > 0
    moved = experiment_of(tmp_path / "suite", discovery=asked)
    assert not {"movement", "discovery"} & {stage for stage, _ in computed(local_store, moved)[0]}
    plan = Plan(local_store, moved.runs(), corpora, moved)
    plan.look()
    assert {"movement", "discovery"} <= set(plan.refused("tiny.baseline.s0"))


def test_numbers_are_those_of_transformers_own_model(local_store, tmp_path):
    """With the rotation, epsilon and precision that config.json tells, not those that a model of this family has by default."""
    experiment = experiment_of(suite(tmp_path / "suite"))
    computed(local_store, experiment)
    run = OpenRun(local_store, experiment.runs()[0])
    theirs = GPTNeoXForCausalLM.from_pretrained(tmp_path / "suite" / "step1000", dtype=torch.float32).eval()
    probe = run.tokens.probe
    with torch.no_grad():
        value = float(MECHANISMS["induction_copy_advantage"].value(Logits(theirs), probe))
    stored = query(
        local_store.root,
        "select value from mechanism_values where step = 1000 and mechanism = 'induction_copy_advantage'",
    ).item()
    assert stored == pytest.approx(value, abs=2e-4)


@pytest.mark.slow
def test_a_revision_that_comes_later_is_the_only_one_that_is_imported(local_store, tmp_path):
    place = suite(tmp_path / "suite", STEPS[:3])
    computed(local_store, experiment_of(place))
    before = dict(query(local_store.root, "select step, data_version from checkpoints").rows())
    revision(place / "step1000", 1000)
    done, _ = computed(local_store, experiment_of(place))
    assert ("training", "tiny.baseline.s0") in done
    after = dict(query(local_store.root, "select step, data_version from checkpoints").rows())
    assert before.items() < after.items()
    assert set(after) == set(STEPS)


@pytest.mark.slow
def test_a_revision_that_is_another_now_is_named_and_imported_again(local_store, tmp_path):
    place = suite(tmp_path / "suite")
    experiment = experiment_of(place)
    computed(local_store, experiment)
    revision(place / "step16", 17)
    with pytest.raises(MechError, match="revision step16 of .* is not what it was when it was imported"):
        OpenRun(local_store, experiment.runs()[0]).weights(16)
    done, _ = computed(local_store, experiment_of(place))
    assert ("analysis", "tiny.baseline.s0") in done


def test_single_files_beside_one_config_and_names_that_tell_no_step(local_store, tmp_path):
    place = suite(tmp_path / "suite", (3, 7))
    for step, name in ((3, "early"), (7, "late")):
        shutil.move(place / f"step{step}" / "model.safetensors", place / f"{name}.safetensors")
        shutil.move(place / f"step{step}" / "config.json", place / "config.json")
        shutil.rmtree(place / f"step{step}")
    named = {"revisions": {"early.safetensors": 3, "late.safetensors": 7}}
    computed(local_store, experiment_of(place, imported=named))
    assert query(local_store.root, "select step from checkpoints order by step")["step"].to_list() == [3, 7]
    with pytest.raises(MechError, match="no revision whose name tells a step"):
        experiment_of(place)


@pytest.mark.slow
def test_seeds_of_a_suite_are_runs_of_one_experiment(local_store, tmp_path):
    for seed in (1, 2):
        suite(tmp_path / "suite" / f"seed{seed}", (0, 8 * seed))
    experiment = experiment_of(f"{tmp_path}/suite/seed{{seed}}", seeds=[1, 2], ledger={})
    computed(local_store, experiment)
    found = query(
        local_store.root, "select run, list(step order by step) from checkpoints group by run order by run"
    ).rows()
    assert found == [("tiny.baseline.s1", [0, 8]), ("tiny.baseline.s2", [0, 16])]


def spoil_shard(place):
    shutil.rmtree(place)
    suite(place, max_shard_size="20KB")
    sorted((place / "step16").glob("*.safetensors"))[0].unlink()


def cut(place):
    path = place / "step16" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def other_shape(place):
    GPTNeoXForCausalLM(config(hidden_size=16)).save_pretrained(place / "step16")


def other_type(place):
    for path in place.glob("*/config.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "mamba"}))


@pytest.mark.parametrize(
    ("spoil", "change", "problem"),
    [
        (spoil_shard, {}, "step16: shard model-.* is missing"),
        (cut, {}, "step16: model.safetensors has .* bytes, its head tells of"),
        (other_shape, {}, "step16 does not fit the model"),
        (other_type, {}, "holds a model of type 'mamba', which is none of gpt2, gpt_neox, llama"),
        (shutil.rmtree, {}, "there is no folder"),
        (lambda place: None, {"imported": {"steps": [0, 2, 16]}}, "no revision of step 2; it has 0, 1, 16, 1000"),
        (lambda place: shutil.copytree(place / "step1", place / "checkpoint-1"), {}, "are both of step 1"),
        (lambda place: None, {"model": {"layers": 7}}, "model.layers of run .* is 7, and 2 in config.json"),
        (
            lambda place: None,
            {"tokenizer": {"vocabulary": 310}},
            "the tokenizer has 310 tokens, model.vocabulary is 300",
        ),
        (lambda place: None, {"data": TINY["data"] | {"context": 128}}, "set data.context: 64 or less"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_half_imported(local_store, tmp_path, spoil, change, problem):
    place = suite(tmp_path / "suite")
    spoil(place)
    with pytest.raises(MechError, match=problem):
        computed(local_store, experiment_of(place, **change))
    assert query(local_store.root, "select count(*) from checkpoints").item() == 0


def test_a_hub_that_cannot_be_reached_is_an_error_in_words(monkeypatch):
    def nobody(place):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.list_repo_refs", nobody)
    with pytest.raises(
        MechError, match="who/nothing is not in the cache and cannot be listed by the hub: no route to host"
    ):
        LAYOUTS["huggingface"].revisions(Imported(layout="huggingface", place="who/nothing"))


def test_what_is_fetched_is_gone_when_it_was_read(tmp_path, monkeypatch):
    """Never more than one revision is on disk beside what the cache had."""
    seen = []

    def fetch(place, revision, allow_patterns, cache_dir):
        folder = Path(cache_dir) / "snapshot"
        assert not any(path.exists() for path in seen)
        seen.append(folder)
        GPTNeoXForCausalLM(config()).save_pretrained(folder)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    spec = Imported(layout="huggingface", place="who/nothing")
    for name in ("step1", "step2"):
        with LAYOUTS["huggingface"].opened(spec, name) as folder:
            assert (folder / "config.json").is_file()
    assert len(seen) == 2
    assert not any(path.exists() for path in seen)


def test_twenty_revisions_are_analysed_with_at_most_two_on_disk(local_store, tmp_path, monkeypatch):
    """Fetched one by one, read, and gone: for every stage of a whole run, the movements of weights among them."""
    steps = range(0, 40, 2)
    suite(tmp_path / "hub", steps)
    fetched, most = list[Path](), list[int]()

    def fetch(place, revision, allow_patterns, cache_dir):
        folder = Path(cache_dir) / revision
        shutil.copytree(tmp_path / "hub" / revision, folder)
        fetched.append(folder)
        most.append(sum(path.exists() for path in fetched))
        return str(folder)

    refs = [SimpleNamespace(name=f"step{step}", target_commit=COMMIT.format(step)) for step in steps]
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.setattr("huggingface_hub.list_repo_refs", lambda place: SimpleNamespace(branches=refs, tags=[]))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    experiment = experiment_of("who/suite", "huggingface", readouts={"windows": [[0, 38]], "tokens": 2})
    computed(local_store, experiment)
    assert query(local_store.root, "select count(distinct step) from head_scores").item() == 20
    assert query(local_store.root, "select count(*) from vocabulary_readouts").item() == 2 * (4 + 64) * 2 * 2
    assert max(most) <= 2
    assert not any(path.exists() for path in fetched)


def test_a_window_of_readouts_without_a_revision_is_named(tmp_path):
    place = suite(tmp_path / "suite")
    with pytest.raises(MechError, match=r"readouts.windows: run tiny.baseline.s0 has no revision of step 2"):
        experiment_of(place, readouts={"windows": [[0, 2]]})


def test_a_bundle_of_imported_runs_says_where_their_states_are_or_holds_them(local_store, tmp_path):
    place = suite(tmp_path / "suite")
    experiment = experiment_of(place)
    computed(local_store, experiment)
    named = export(local_store, Wish("tiny"), tmp_path / "named")
    card = (tmp_path / "named" / "README.md").read_text()
    assert named.elsewhere == 1
    assert "They are not in this bundle" in card
    assert str(place) in card
    assert not list((tmp_path / "named").rglob("state.safetensors"))
    export(local_store, Wish("tiny", whole=True), tmp_path / "whole")
    assert "They are here as well" in (tmp_path / "whole" / "README.md").read_text()
    table = tmp_path / "whole" / "tables" / "checkpoints.parquet"
    ((uri,),) = duckdb.sql(f"select uri from '{table}' where step = 16").fetchall()
    state = load_file(tmp_path / "whole" / uri)
    kept = OpenRun(local_store, experiment.runs()[0])
    theirs = kept.trainer.flat.named(kept.weights(16))
    assert all(torch.equal(state[f"model.{name}"], tensor) for name, tensor in theirs.items())
    for bundle in ("named", "whole"):
        other = Store(tmp_path / f"store of {bundle}")
        bring_back(other, tmp_path / bundle)
        found = verify_store(other.files)
        assert (found.damage, found.orphans) == ([], [])
        sql = "select run, step, mechanism, value from mechanism_values order by all"
        assert query(other.root, sql).equals(query(local_store.root, sql))
        assert OpenRun(other, experiment.runs()[0]).weights(16).equal(kept.weights(16)), "read where they are"
    shutil.rmtree(place / "step16")
    with pytest.raises(MechError, match="step16 of .* is gone"):
        export(local_store, Wish("tiny", whole=True), tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("layout", ["folder", "huggingface"])
def test_an_experiment_is_read_without_reading_weights(tmp_path, monkeypatch, layout):
    """Every command reads it: none waits for a download or for pickles."""
    place = suite(tmp_path / "suite") if layout == "folder" else cached(tmp_path / "models--who--suite")
    monkeypatch.setattr(type(LAYOUTS[layout]), "opened", lambda *asked: pytest.fail("a revision was opened"))
    (spec,) = experiment_of(place, layout).runs()
    assert spec.model.family == "gpt_neox"
    assert spec.imported.found_steps == STEPS
