"""Pico, OLMo-2, Stanford CRFM and nanochat: files as their programs write them become the models and moments that they are."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.layout import MOMENTS
from mech_pipeline.exchange.suites.layouts import LAYOUTS
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.imported import Imported
from mech_pipeline.store.reading.query import query
from mech_pipeline.training.architectures import CLASSES
from tests.exchange.test_suites import COMMIT, computed, experiment_of
from tests.support import suites

pytestmark = pytest.mark.usefixtures("folder")
STEPS = (1, 3)


def crfm(place, steps):
    """The hub's cache with a branch per step, as of stanford-crfm/alias-gpt2-small-x21."""
    found = suites.write_crfm(place / "snapshots" / COMMIT.format(steps), steps)
    (place / "refs").mkdir(exist_ok=True)
    (place / "refs" / f"checkpoint-{steps}").write_text(COMMIT.format(steps))
    return found


WRITTEN = {
    "pico": ("pico", lambda place, steps: suites.write_pico(place / "checkpoints" / f"step_{steps}", steps)),
    "crfm": ("huggingface", crfm),
    "olmo": ("olmo", lambda place, steps: suites.write_olmo(place / f"step{steps}-unsharded", steps)),
    "nanochat": ("nanochat", suites.write_nanochat),
}


def suite(place, name):
    """Both steps in a layout; returns what was written of the last one."""
    layout, write = WRITTEN[name]
    place.mkdir()
    return layout, [write(place, steps) for steps in STEPS][-1]


def opened(layout, place, step=STEPS[-1]):
    """Model and moments of a revision as they are read."""
    reader, spec = LAYOUTS[layout], Imported(layout=layout, place=str(place))
    found = tuple((each.step, each.name, each.identity) for each in reader.revisions(spec))
    spec = spec.model_copy(update={"found": found})
    name, _ = spec.revision(step)
    config = json.loads(reader.config(spec, name))
    with reader.opened(spec, name) as folder:
        model = CLASSES[config["model_type"]].from_pretrained(folder, attn_implementation="eager", use_safetensors=True)
        moments = load_file(folder / MOMENTS) if (folder / MOMENTS).is_file() else None
    assert [each for each, *_ in found] == list(STEPS)
    return SimpleNamespace(model=model.eval(), moments=moments)


@pytest.mark.parametrize("name", WRITTEN)
def test_the_model_that_is_read_computes_what_the_one_that_was_written_does(tmp_path, name):
    layout, was = suite(tmp_path / "suite", name)
    read = opened(layout, tmp_path / "suite")
    tokens = torch.randint(0, 300, (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(read.model(tokens).logits, was.model(tokens), atol=2e-5)


def test_moments_of_pico_are_those_of_its_parameters_with_rows_sorted_alike(tmp_path):
    """Moments are linear in the gradients: sorted as weights are, they say the same of the same rows."""
    layout, was = suite(tmp_path / "suite", "pico")
    moments = opened(layout, tmp_path / "suite").moments
    plain = was.moments["layers.1.swiglu.w_2.weight"]
    assert torch.equal(moments["exp_avg_sq.model.layers.1.mlp.down_proj.weight"], plain["exp_avg_sq"])
    query_moment, read = (
        was.moments["layers.0.attention.q_proj.weight"]["exp_avg"],
        moments["exp_avg.model.layers.0.self_attn.q_proj.weight"],
    )
    width = suites.WIDTH // suites.HEADS
    for head in range(suites.HEADS):
        rows, other = query_moment[head * width :][:width], read[head * width :][:width]
        assert torch.equal(torch.cat([rows[0::2], rows[1::2]]), other)


@pytest.mark.parametrize("ranks", [1, 3])
def test_masters_and_moments_of_pico_under_deepspeed_are_joined(tmp_path, ranks):
    """Weights in safetensors are rounded to half precision there; the masters are what was trained."""
    was = [suites.write_pico(tmp_path / "suite" / f"step_{steps}", steps, ranks) for steps in STEPS][-1]
    read = opened("pico", tmp_path / "suite")
    own = dict(was.model.named_parameters())["layers.1.swiglu.w_2.weight"]
    assert torch.equal(read.model.state_dict()["model.layers.1.mlp.down_proj.weight"], own)
    for part in ("exp_avg", "exp_avg_sq"):
        moment = was.moments["layers.1.swiglu.w_2.weight"][part]
        assert torch.equal(read.moments[f"{part}.model.layers.1.mlp.down_proj.weight"], moment)
    assert len(read.moments) == 2 * len(was.moments)


def rank_is_gone(folder):
    (folder / "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()


def model_of_another_step(folder):
    said = torch.load(folder / "mp_rank_00_model_states.pt", weights_only=False)
    torch.save(said | {"_checkpoint_step": 2}, folder / "mp_rank_00_model_states.pt")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (rank_is_gone, "lacks the states of rank 1"),
        (model_of_another_step, "step_3: fabric_state/checkpoint is of step 2, expected 3"),
    ],
)
def test_what_is_wrong_with_picos_deepspeed_state_is_named(tmp_path, spoil, problem):
    for steps in STEPS:
        suites.write_pico(tmp_path / "suite" / f"step_{steps}", steps, ranks=3)
    spoil(tmp_path / "suite" / "step_3" / "fabric_state" / "checkpoint")
    with pytest.raises(MechError, match=problem):
        opened("pico", tmp_path / "suite")


def test_moments_of_olmo_are_cut_like_its_weights(tmp_path):
    layout, was = suite(tmp_path / "suite", "olmo")
    moments = opened(layout, tmp_path / "suite").moments
    for part in ("exp_avg", "exp_avg_sq"):
        assert all(torch.equal(moments[f"{part}.{name}"], kept[part]) for name, kept in was.moments.items())
    assert len(moments) == 2 * len(was.moments)


@pytest.mark.parametrize("ranks", [1, 2])
def test_moments_of_nanochat_are_adamws_and_muons_of_all_ranks(tmp_path, ranks):
    was = [suites.write_nanochat(tmp_path / "suite", steps, ranks) for steps in STEPS][-1]
    moments = opened("nanochat", tmp_path / "suite").moments
    for name, p in (
        ("lm_head.weight", was.model.lm_head.weight),
        ("model.embed_tokens.weight", was.model.transformer.wte.weight),
    ):
        assert all(
            torch.equal(moments[f"{part}.{name}"], was.adamw.state[p][part]) for part in ("exp_avg", "exp_avg_sq")
        )
    names = {
        "attn.c_q": "self_attn.q_proj",
        "attn.c_proj": "self_attn.o_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for layer, block in enumerate(was.model.transformer.h):
        for own, other in names.items():
            p = block.get_parameter(f"{own}.weight")
            assert torch.equal(
                moments[f"exp_avg.model.layers.{layer}.{other}.weight"], was.muon.state[p]["momentum_buffer"]
            )
            assert not moments[f"exp_avg_sq.model.layers.{layer}.{other}.weight"].any()


@pytest.mark.parametrize("name", WRITTEN)
def test_a_suite_is_a_run_whose_rows_say_what_its_moments_are(local_store, tmp_path, name):
    layout, _ = suite(tmp_path / "suite", name)
    experiment = experiment_of(tmp_path / "suite", layout)
    done, _ = computed(local_store, experiment)
    assert {"training", "analysis", "formation", "report"} <= {stage for stage, _ in done}
    evidence = "absent" if name == "crfm" else "native"
    assert query(local_store.root, "select step, moments from checkpoints order by step").rows() == [
        (1, evidence),
        (3, evidence),
    ]
    scores = query(
        local_store.root,
        "select step, count(*), bool_and(isfinite(value)) from head_scores group by step order by step",
    )
    assert scores.rows() == [(step, 2 * suites.LAYERS * suites.HEADS, True) for step in STEPS]
    if evidence == "native":
        state = OpenRun(local_store, experiment.runs()[0]).state(3)
        assert state.m.abs().sum() > 0


def test_commits_of_picos_branch_are_steps_by_their_titles(tmp_path, monkeypatch):
    """The commit with the Fabric state, not the one before it that has weights alone; what was saved again replaces."""
    saved = ["Fabric Checkpoint -- Step 2", "HF Model -- Step 2", "Logs -- Step 1", "Fabric Checkpoint -- Step 1"]
    saved += ["HF Model -- Step 1", "Tokenizer -- Step 0", "HF Model -- Step 0"]  # newest first, as the hub lists them
    titles = [*(f"Saving {what}" for what in saved), "initial commit"]
    commits = [SimpleNamespace(commit_id=f"c{place}", title=title) for place, title in enumerate(titles)]
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.list_repo_commits", lambda repo, revision: asked.append((repo, revision)) or commits
    )
    found = LAYOUTS["pico"].revisions(Imported(layout="pico", place="pico-lm/pico-decoder-tiny@pico-decoder-tiny-1"))
    assert [(each.step, each.name) for each in found] == [(0, "c6"), (1, "c3"), (2, "c0")]
    assert asked == [("pico-lm/pico-decoder-tiny", "pico-decoder-tiny-1")]


def test_a_commit_of_pico_is_fetched_with_its_state_and_gone_afterwards(tmp_path, monkeypatch):
    folders = []

    def fetch(repository, revision, allow_patterns, cache_dir):
        folders.append(tmp_path.__class__(cache_dir) / revision)
        suites.write_pico(folders[-1], 2)
        assert "fabric_state/*" in allow_patterns or allow_patterns == ["config.json"]
        return str(folders[-1])

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    spec = Imported(layout="pico", place="pico-lm/x@run", revisions={"abc": 2}, found=((2, "abc", "abc"),))
    assert json.loads(LAYOUTS["pico"].config(spec, "abc"))["model_type"] == "llama"
    with LAYOUTS["pico"].opened(spec, "abc") as folder:
        assert {"model.safetensors", "config.json", MOMENTS} == {path.name for path in folder.iterdir()}
    assert [path.exists() for path in folders] == [False, False]


def other_step(place, layout):
    if layout == "pico":
        shutil.copy(place / "checkpoints/step_1/fabric_state/checkpoint.pt", place / "checkpoints/step_3/fabric_state")
    elif layout == "olmo":
        shutil.copy(place / "step1-unsharded/train.pt", place / "step3-unsharded")
    else:
        shutil.copy(place / "meta_000001.json", place / "meta_000003.json")


def no_weights(place, layout):
    names = {
        "pico": "checkpoints/step_3/model.safetensors",
        "olmo": "step3-unsharded/model.pt",
        "nanochat": "model_000003.pt",
    }
    (place / names[layout]).write_bytes(b"nothing")


def gone(place, layout):
    names = {"pico": "checkpoints/step_3/model.safetensors", "olmo": "step3-unsharded/config.yaml"}
    (place / names[layout]).unlink()


def half_a_state(place, layout):
    path = place / {"pico": "checkpoints/step_3/fabric_state/checkpoint.pt", "olmo": "step3-unsharded/optim.pt",
                    "nanochat": "optim_000003_rank0.pt"}[layout]  # fmt: skip
    said = torch.load(path, weights_only=False)
    kept = {
        "pico": lambda: said["_optimizer"]["state"],
        "olmo": lambda: said["state"],
        "nanochat": lambda: said[1]["state"],
    }[layout]()
    del kept[list(kept)[2]]
    torch.save(said, path)


def later_nanochat(place, layout):
    path = place / "model_000003.pt"
    torch.save(torch.load(path) | {"resid_lambdas": torch.ones(2)}, path)


def short_windows(place, layout):
    path = place / "meta_000003.json"
    said = json.loads(path.read_text())
    said["model_config"]["window_pattern"] = "SSSL"
    path.write_text(json.dumps(said))


def older_olmo(place, layout):
    for path in place.glob("*/config.yaml"):
        path.write_text(path.read_text().replace("norm_after: true", "norm_after: false"))


@pytest.mark.parametrize(
    ("name", "spoil", "problem"),
    [
        ("pico", other_step, "step_3: fabric_state/checkpoint.pt is of step 1, expected 3"),
        ("olmo", other_step, "train.pt is of step 1, expected 3"),
        ("nanochat", other_step, "meta_000003.json is of step 1, expected 3"),
        ("pico", no_weights, "model.safetensors .*(no safetensors file|bytes)"),
        ("pico", gone, "revision step_3 of .* is gone, or has no"),
        ("olmo", gone, "step3-unsharded has no config.yaml"),
        ("olmo", no_weights, "model.pt cannot be read"),
        ("nanochat", no_weights, "model_000003.pt cannot be read"),
        ("pico", half_a_state, "has no exp_avg of layers.0.attention.k_proj.weight"),
        ("olmo", half_a_state, "optim.pt has no exp_avg of"),
        ("nanochat", half_a_state, "lack the momentum of transformer.h"),
        ("nanochat", later_nanochat, "has parameter resid_lambdas: it is of a nanochat after December 2025"),
        ("nanochat", short_windows, "window_pattern is SSSL"),
        ("olmo", older_olmo, "norm_after is False: no OLMo-2"),
    ],
)
def test_what_is_not_whole_or_of_another_step_is_named(tmp_path, name, spoil, problem):
    layout, _ = suite(tmp_path / "suite", name)
    spoil(tmp_path / "suite", name)
    with pytest.raises(MechError, match=problem):
        opened(layout, tmp_path / "suite")


def test_shards_of_a_pickled_model_are_all_there_or_named(tmp_path):
    suites.write_crfm(tmp_path / "suite" / "checkpoint-1", 1, shards=3)
    suites.write_crfm(tmp_path / "suite" / "checkpoint-3", 3, shards=3)
    assert opened("folder", tmp_path / "suite").moments is None
    (tmp_path / "suite" / "checkpoint-3" / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(MechError, match=r"checkpoint-3: shard pytorch_model-00002-of-00003.bin is missing"):
        opened("folder", tmp_path / "suite")


@pytest.mark.parametrize("family", ["olmo2", "nanochat"])
def test_what_only_suites_bring_is_not_trained(family):
    with pytest.raises(MechError, match=f"family {family} is not trained here"):
        experiment_of("nowhere", model={"family": family}, imported={})
