"""Native checkpoints of GPT-NeoX in DeepSpeed's layouts, written by a small training: padding, two groups, several ranks."""

import argparse
import shutil
from collections import OrderedDict

import pytest
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.converting.neox import converted
from mech_pipeline.exchange.suites.converting.unpickle import tensors_of
from mech_pipeline.exchange.suites.layout import DEEPSPEED_MODEL as MODEL
from mech_pipeline.exchange.suites.layout import step_of
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.store.reading.query import query
from tests.exchange.test_suites import computed, experiment_of

pytestmark = [pytest.mark.usefixtures("folder"), pytest.mark.process]  # every pickle is read by a process of its own
CONFIG = GPTNeoXConfig(
    vocab_size=300,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=64,
    rope_parameters={"rope_type": "default", "rope_theta": 10000, "partial_rotary_factor": 0.25},
)


class Evil:
    """What a pickle must not be able to do."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.path}",)


def neox_name(name):
    """A parameter of `transformers` as NeoX's sequential module calls it."""
    if name.startswith("gpt_neox.layers."):
        layer, rest = name.removeprefix("gpt_neox.layers.").split(".", 1)
        return f"sequential.{int(layer) + 2}.{rest}"
    ends = {
        "gpt_neox.embed_in.": "sequential.0.word_embeddings.",
        "gpt_neox.final_layer_norm.": "sequential.5.norm.",
        "lm_head.": "sequential.6.final_linear.",
    }
    (found,) = [name.replace(begin, other) for begin, other in ends.items() if name.startswith(begin)]
    return found


def trained(steps):
    """A model after some updates of Adam, and its moments by parameter."""
    torch.manual_seed(3)
    model = GPTNeoXForCausalLM(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(steps):
        tokens = torch.randint(0, 300, (4, 16))
        optimizer.zero_grad()
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    moments = {
        part: {name: optimizer.state[p][part].clone() for name, p in model.named_parameters()}
        for part in ("exp_avg", "exp_avg_sq")
    }
    return {"model": weights} | moments


def in_groups(weights):
    """Names with and without weight decay."""
    decay = [name for name, tensor in weights.items() if tensor.dim() > 1]
    return decay, [name for name in weights if name not in decay]


def flat(state, part, names, ranks):
    """A group's vector, padded so that the ranks share it evenly."""
    vector = torch.cat([state[part][name].flatten() for name in names])
    return torch.cat([vector, torch.full((-len(vector) % ranks,), 7.0)]).chunk(ranks)


def module_of(state):
    module = {neox_name(name): tensor.half() for name, tensor in state["model"].items()}
    return module | {"sequential.2.attention.rotary_emb.inv_freq": torch.ones(4)}


def write_zero1(folder, state, ranks=3):
    folder.mkdir(parents=True)
    groups = in_groups(state["model"])
    shapes = [OrderedDict((neox_name(n), state["model"][n].shape) for n in names) for names in groups]
    torch.save({"module": module_of(state), "param_shapes": shapes, "args": argparse.Namespace(lr=1)}, folder / MODEL)
    for rank in range(ranks):
        part = {p: [flat(state, p, names, ranks)[rank].clone() for names in groups] for p in state}
        adam = {
            g: {"exp_avg": part["exp_avg"][g], "exp_avg_sq": part["exp_avg_sq"][g], "step": step_of(folder.name)}
            for g in range(2)
        }
        said = {
            "base_optimizer_state": {"state": adam},
            "single_partition_of_fp32_groups": part["model"],
            "zero_stage": 1,
        }
        torch.save({"optimizer_state_dict": said}, folder / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")


def write_stage0(folder, state):
    folder.mkdir(parents=True)
    groups = in_groups(state["model"])
    whole = {p: [flat(state, p, names, 1)[0] for names in groups] for p in state}
    adam = {
        g: {"exp_avg": whole["exp_avg"][g], "exp_avg_sq": whole["exp_avg_sq"][g], "step": step_of(folder.name)}
        for g in range(2)
    }
    optimizer = {"fp32_groups_flat": whole["model"], "optimizer_state_dict": {"state": adam}}
    torch.save({"module": module_of(state), "optimizer": optimizer}, folder / MODEL)


@pytest.mark.parametrize("write", [write_zero1, write_stage0])
def test_masters_and_moments_come_back_under_the_names_of_transformers(tmp_path, write):
    state = trained(4)
    write(tmp_path / "global_step4", state)
    found = converted(tmp_path / "global_step4", tmp_path)
    assert found.keys() == state.keys()
    for part, named in state.items():
        assert found[part].keys() == named.keys()
        assert all(torch.equal(found[part][name], tensor) for name, tensor in named.items()), part


@pytest.mark.slow
def test_a_suite_of_native_checkpoints_is_a_run_with_native_moments(local_store, tmp_path):
    place = tmp_path / "neox"
    for step in (0, 2, 4):
        state = trained(max(step, 1))
        (write_stage0 if step == 2 else write_zero1)(place / f"global_step{step}", state)
    CONFIG.save_pretrained(place)
    (place / "config.json").write_text(
        (place / "config.json").read_text().replace('"dtype": null', '"dtype": "float16"')
    )
    experiment = experiment_of(place, "neox")
    done, _ = computed(local_store, experiment)
    assert {"training", "analysis", "formation"} <= {stage for stage, _ in done}
    assert query(local_store.root, "select step, moments from checkpoints order by step").rows() == [
        (0, "native"),
        (2, "native"),
        (4, "native"),
    ]
    run = OpenRun(local_store, experiment.runs()[0])
    kept = run.trainer.flat.named(run.state(4).v)
    assert all(torch.equal(kept[name], tensor) for name, tensor in state["exp_avg_sq"].items())


def test_a_pickle_runs_no_code(tmp_path):
    torch.save({"module": {"a": torch.ones(2)}, "evil": Evil(tmp_path / "touched"), "iteration": 4}, tmp_path / "x.pt")
    ((plain, tensors),) = tensors_of([tmp_path / "x.pt"], tmp_path)
    assert (plain, list(tensors)) == ({"iteration": 4}, ["module/a"])
    assert not (tmp_path / "touched").exists()


def no_rank(folder):
    (folder / "zero_pp_rank_1_mp_rank_00_optim_states.pt").unlink()


def no_pickle(folder):
    (folder / MODEL).write_bytes(b"nothing")


def no_module(folder):
    shutil.rmtree(folder)
    folder.mkdir()
    torch.save({"optimizer": {}}, folder / MODEL)


def moments_of_another_step(folder):
    path = folder / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    said = torch.load(path)
    said["optimizer_state_dict"]["base_optimizer_state"]["state"][0]["step"] = 9
    torch.save(said, path)


def too_short(folder):
    path = folder / "zero_pp_rank_2_mp_rank_00_optim_states.pt"
    said = torch.load(path)
    groups = said["optimizer_state_dict"]["single_partition_of_fp32_groups"]
    groups[0] = groups[0][:-400]
    torch.save(said, path)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (no_rank, "lacks the states of rank 1"),
        (no_pickle, "cannot be read"),
        (no_module, "has no module"),
        (moments_of_another_step, "rank 1 is of another step, its .*/step is 9"),
        (too_short, "group 0 of model has .* numbers, its parameters ask for"),
    ],
)
def test_what_is_not_whole_is_named(tmp_path, spoil, problem):
    folder = tmp_path / "global_step1"
    write_zero1(folder, trained(1))
    spoil(folder)
    with pytest.raises(MechError, match=problem):
        converted(folder, tmp_path, 1)
