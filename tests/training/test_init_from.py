"""Initial weights: a folder of `transformers` gives the logits that `transformers` gives, or is refused by a field's name."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from mech_pipeline.attribution.per_example.components import components_of
from mech_pipeline.errors import MechError
from mech_pipeline.spec.initial import initial_sha256
from mech_pipeline.spec.model import Model
from mech_pipeline.training.bridging import bridge
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model, parameter_count

ROWS, CONTEXT = 40, 16
TOKENS = torch.randint(0, ROWS, (2, CONTEXT), generator=torch.Generator().manual_seed(0))
GPT2 = {"vocab_size": ROWS, "n_positions": CONTEXT, "n_embd": 16, "n_layer": 2, "n_head": 2}
NEOX = {
    "vocab_size": ROWS,
    "hidden_size": 16,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": CONTEXT,
}
LLAMA = NEOX | {"intermediate_size": 24, "num_attention_heads": 4}
OURS = {
    "gpt2": {"layers": 2, "heads": 2, "d_model": 16},
    "gpt_neox": {"layers": 2, "heads": 2, "d_model": 16},
    "llama": {"layers": 2, "heads": 4, "d_model": 16, "d_mlp": 24},
}


def rotary(theta=10_000.0, kind="default", **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


def saved(folder, config):
    """A checkpoint whose every parameter is moved, biases and norms too; saved as `transformers` saves it."""
    classes = {"gpt2": GPT2LMHeadModel, "gpt_neox": GPTNeoXForCausalLM, "llama": LlamaForCausalLM}
    torch.manual_seed(0)
    made = (classes | {"mistral": MistralForCausalLM})[config.model_type](config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    made.save_pretrained(folder)
    return folder


def started(folder, family, *, for_bridge=False, context=CONTEXT, **fields):
    spec = Model(family=family, init_from=str(folder), **(OURS.get(family, {}) | fields))
    spec = spec.model_copy(update={"init_sha256": initial_sha256(str(folder))})
    return build_model(spec, ROWS, context, 0, for_bridge=for_bridge)


FOLLOWED = {
    "gpt2": (GPT2Config(**GPT2), {}),
    "gpt2, epsilon": (GPT2Config(**GPT2, layer_norm_epsilon=1e-2), {}),
    "gpt2, scaled by layer": (GPT2Config(**GPT2, scale_attn_by_inverse_layer_idx=True), {}),
    "gpt2, relu and width": (GPT2Config(**GPT2, activation_function="relu", n_inner=24),
                             {"activation": "relu", "d_mlp": 24}),
    "gpt2, tanh, more positions": (GPT2Config(**GPT2 | {"n_positions": 64}, activation_function="gelu_pytorch_tanh"), {}),
    "gpt2, untied": (GPT2Config(**GPT2, tie_word_embeddings=False), {}),
    "neox": (GPTNeoXConfig(**NEOX), {}),
    "neox, one after the other": (GPTNeoXConfig(**NEOX, use_parallel_residual=False), {}),
    "neox, epsilon": (GPTNeoXConfig(**NEOX, layer_norm_eps=1e-3), {}),
    "neox, rotary": (GPTNeoXConfig(**NEOX, rope_parameters=rotary(500.0, partial_rotary_factor=1.0)), {"rotary_share": 1}),
    "neox, silu": (GPTNeoXConfig(**NEOX, hidden_act="silu"), {"activation": "silu"}),
    "neox, tied": (GPTNeoXConfig(**NEOX, tie_word_embeddings=True), {}),
    "llama": (LlamaConfig(**LLAMA), {}),
    "llama, epsilon": (LlamaConfig(**LLAMA, rms_norm_eps=1e-2), {}),
    "llama, rotary base": (LlamaConfig(**LLAMA, rope_parameters=rotary(100.0)), {}),
    "llama, linear": (LlamaConfig(**LLAMA, rope_parameters=rotary(kind="linear", factor=4.0)), {}),
    "llama, llama3": (LlamaConfig(**LLAMA, rope_parameters=rotary(
        kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8)), {}),
    "llama, yarn": (LlamaConfig(**LLAMA, rope_parameters=rotary(
        kind="yarn", factor=2.0, original_max_position_embeddings=8)), {}),
    "llama, gelu": (LlamaConfig(**LLAMA, hidden_act="gelu"), {"activation": "gelu"}),
    "llama, tied": (LlamaConfig(**LLAMA, tie_word_embeddings=True), {}),
    "llama, shared keys and width": (LlamaConfig(**LLAMA, num_key_value_heads=2, head_dim=8), {"kv_heads": 2, "d_head": 8}),
    "llama, biases": (LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLLOWED)
def test_logits_are_those_of_transformers_on_the_same_folder(name, tmp_path):
    config, fields = FOLLOWED[name]
    folder = saved(tmp_path, config)
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    ours = started(folder, config.model_type, **fields)
    with torch.no_grad():
        expected = theirs(TOKENS).logits
        assert torch.allclose(ours(TOKENS), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)
        flat = FlatModel(ours)
        again = flat.model(TOKENS)
        wrapped = bridge(started(folder, config.model_type, for_bridge=True, **fields))(TOKENS)
    assert torch.allclose(again, expected, atol=1e-4), "views into one vector"
    assert torch.allclose(wrapped, expected, atol=1e-4), "what is patched and scored"
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    heads = config.num_attention_heads
    assert len(components_of(flat, heads, getattr(config, "num_key_value_heads", None)).index) == len(flat.vector)
    spec = Model(family=config.model_type, init_from=str(folder), **(OURS[config.model_type] | fields))
    assert parameter_count(spec, ROWS, CONTEXT) == len(flat.vector)


REFUSED = {
    "another type": (MistralConfig(**LLAMA, num_key_value_heads=4), "llama", {}, "model_type is mistral in its config"),
    "heads": (LlamaConfig(**LLAMA | {"num_attention_heads": 8}), "llama", {},
              r"num_attention_heads is 8 in its config.json, and model.heads is 4 \(and 2 more\) → set model.heads: 8"),
    "gpt2 heads": (GPT2Config(**GPT2 | {"n_head": 4}), "gpt2", {}, "set model.heads: 4$"),
    "layers": (GPT2Config(**GPT2), "gpt2", {"layers": 3}, "num_hidden_layers is 2 in .* set model.layers: 2"),
    "activation": (LlamaConfig(**LLAMA, hidden_act="gelu"), "llama", {}, "hidden_act is gelu .* set model.activation: gelu"),
    "rotary share": (GPTNeoXConfig(**NEOX), "gpt_neox", {"rotary_share": 0.5}, "set model.rotary_share: 0.25"),
    "context": (GPT2Config(**GPT2 | {"n_positions": 8}), "gpt2", {}, "n.*is 8 in its config.json → set data.context: 8"),
    "dynamic": (LlamaConfig(**LLAMA, rope_parameters=rotary(kind="dynamic", factor=2.0)), "llama", {},
                "rope_type is dynamic"),
    "cross": (GPT2Config(**GPT2, add_cross_attention=True), "gpt2", {}, "add_cross_attention is True"),
    "no biases": (GPTNeoXConfig(**NEOX, attention_bias=False), "gpt_neox", {}, "attention_bias is False"),
    "not scaled": (GPT2Config(**GPT2, scale_attn_weights=False), "gpt2", {}, "scale_attn_weights is False"),
    "upcast": (GPT2Config(**GPT2, reorder_and_upcast_attn=True), "gpt2", {}, "reorder_and_upcast_attn is True"),
    "vocabulary": (LlamaConfig(**LLAMA | {"vocab_size": 50}), "llama", {}, "has 50 rows, the run asks for 40"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_model_cannot_be_is_refused_by_name(name, tmp_path):
    config, family, fields, message = REFUSED[name]
    with pytest.raises(MechError, match=message):
        started(saved(tmp_path, config), family, **fields)


def test_files_as_they_were_published_are_read(tmp_path):
    """Old names, buffers that follow from the configuration, half precision, several files, no prefix."""
    folder = saved(tmp_path / "neox", GPTNeoXConfig(**NEOX))
    weights = {
        name.replace("lm_head", "embed_out"): tensor for name, tensor in load_file(folder / "model.safetensors").items()
    }
    extra = {f"gpt_neox.layers.{n}.attention.{name}": torch.ones(2) for n in range(2)
             for name in ("rotary_emb.inv_freq", "bias", "masked_bias")}  # fmt: skip
    save_file(weights | extra, folder / "model.safetensors", {"format": "pt"})
    old = started(folder, "gpt_neox")(TOKENS)
    assert torch.equal(old, started(saved(tmp_path / "new", GPTNeoXConfig(**NEOX)), "gpt_neox")(TOKENS))
    folder = saved(tmp_path / "gpt2", GPT2Config(**GPT2))
    plain = started(folder, "gpt2")(TOKENS)
    bare = {
        name.removeprefix("transformer."): tensor for name, tensor in load_file(folder / "model.safetensors").items()
    }
    save_file(bare | {"h.0.attn.bias": torch.ones(1, 1, 8, 8)}, folder / "model.safetensors", {"format": "pt"})
    assert torch.equal(started(folder, "gpt2")(TOKENS), plain)
    GPT2LMHeadModel.from_pretrained(folder).to(torch.float16).save_pretrained(folder, max_shard_size="5KB")
    os.remove(folder / "model.safetensors")
    assert len(list(folder.glob("*.safetensors"))) > 1
    half = started(folder, "gpt2")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    assert torch.allclose(half(TOKENS), plain, atol=0.02)
    os.remove(sorted(folder.glob("*.safetensors"))[0])
    with pytest.raises(MechError, match="weights of checkpoint .* cannot be read"):
        started(folder, "gpt2")


@pytest.mark.parametrize("cut", [0, 4, 100, 3000, -1])
def test_broken_weights_are_one_line(cut, tmp_path):
    file = saved(tmp_path, GPT2Config(**GPT2)) / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:cut])
    with pytest.raises(MechError, match="weights of checkpoint .* cannot be read") as caught:
        started(tmp_path, "gpt2")
    assert "\n" not in str(caught.value)


def test_missing_and_unusable_weights_are_named(tmp_path):
    file = saved(tmp_path, GPT2Config(**GPT2)) / "model.safetensors"
    weights = load_file(file)
    for change, message in (
        ({"transformer.ln_f.bias": torch.full((16,), torch.nan)}, "transformer.ln_f.bias is not finite"),
        ({"transformer.ln_f.bias": torch.ones(8)}, r"ln_f.bias is \[8\], expected \[16\]"),
        ({"transformer.more": torch.ones(8)}, "transformer.more is more than the model has"),
        ({"transformer.ln_f.bias": None}, "transformer.ln_f.bias is missing"),
    ):
        save_file({n: t for n, t in (weights | change).items() if t is not None}, file, {"format": "pt"})
        with pytest.raises(MechError, match=message):
            started(tmp_path, "gpt2")


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"model_type": "gpt2", "n_layer": "two"}', "[" * 100_000, "{}", "\x00"]
)
def test_a_broken_configuration_is_one_line(content, tmp_path):
    (saved(tmp_path, GPT2Config(**GPT2)) / "config.json").write_text(content)
    with pytest.raises(MechError, match="config.json") as caught:
        started(tmp_path, "gpt2")
    assert "\n" not in str(caught.value)


def test_only_what_was_loaded_rightly_before_keeps_its_hash(tmp_path):
    """Written down from the version that did not read config.json: runs from a plain GPT-2 are not made again."""
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    hashes = {}
    for name, config in {"plain": {"model_type": "gpt2"}, "other": {"model_type": "gpt2", "layer_norm_epsilon": 1e-3},
                         "llama": {"model_type": "llama"}}.items():  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config))
        hashes[name] = initial_sha256(str(tmp_path))
    assert hashes["plain"].startswith("119339848ec5c0c8")
    assert not hashes["other"].startswith("557257ca02478507")
    assert not hashes["llama"].startswith("40a3d9d07a42a7f1")
