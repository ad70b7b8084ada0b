"""Small models in the layouts of public suites, as their own programs train and write them."""

import json
import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
import yaml
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, Olmo2Config, Olmo2ForCausalLM

VOCABULARY, WIDTH, LAYERS, HEADS, LONGEST = 320, 32, 2, 4, 64


def loss(logits, tokens):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


def updates(model, optimizers, count, logits=lambda model, tokens: model(tokens)):
    """Some updates on random text."""
    generator = torch.Generator().manual_seed(7)
    for _ in range(count):
        tokens = torch.randint(0, VOCABULARY, (4, 16), generator=generator)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss(logits(model, tokens), tokens).backward()
        for optimizer in optimizers:
            optimizer.step()


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Pico(nn.Module):
    """pico-train's decoder: neighbouring dimensions are rotated, two heads share keys and values."""

    config = {
        "model_type": "pico_decoder", "vocab_size": VOCABULARY, "d_model": WIDTH, "n_layers": LAYERS,
        "attention_n_heads": HEADS, "attention_n_kv_heads": 2, "activation_hidden_dim": 48, "max_seq_len": LONGEST,
        "norm_eps": 1e-5, "position_emb_theta": 500.0, "batch_size": 4,
    }  # fmt: skip

    def __init__(self):
        super().__init__()
        narrow = WIDTH // 2

        def block():
            made = nn.Module()
            made.attention = nn.Module()
            for name, rows in (("q_proj", WIDTH), ("k_proj", narrow), ("v_proj", narrow), ("o_proj", WIDTH)):
                setattr(made.attention, name, nn.Linear(WIDTH, rows, bias=False))
            made.swiglu = nn.Module()
            made.swiglu.w_0, made.swiglu.w_1 = nn.Linear(WIDTH, 48, bias=False), nn.Linear(WIDTH, 48, bias=False)
            made.swiglu.w_2 = nn.Linear(48, WIDTH, bias=False)
            made.attention_norm, made.swiglu_norm = RMSNorm(WIDTH, 1e-5), RMSNorm(WIDTH, 1e-5)
            return made

        self.embedding_proj = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(block() for _ in range(LAYERS))
        self.output_norm = RMSNorm(WIDTH, 1e-5)
        self.de_embedding_proj = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens):
        h = self.embedding_proj(tokens)
        for layer in self.layers:
            h = h + self.attended(layer.attention, layer.attention_norm(h))
            x, mlp = layer.swiglu_norm(h), layer.swiglu
            h = h + mlp.w_2(F.silu(mlp.w_0(x)) * mlp.w_1(x))
        return self.de_embedding_proj(self.output_norm(h))

    def attended(self, parts, x):
        width, length = WIDTH // HEADS, x.shape[1]
        turn = torch.outer(torch.arange(length), 500.0 ** -(torch.arange(0, width, 2) / width))
        turn = torch.polar(torch.ones_like(turn), turn)[None, :, None]

        def rotated(y):
            y = y.view(*x.shape[:2], -1, width)
            return torch.view_as_real(
                torch.view_as_complex(y.reshape(*y.shape[:-1], -1, 2).contiguous()) * turn
            ).flatten(3)

        query, key, value = (
            rotated(parts.q_proj(x)),
            rotated(parts.k_proj(x)),
            parts.v_proj(x).view(*x.shape[:2], -1, width),
        )
        mixed = F.scaled_dot_product_attention(
            *(y.transpose(1, 2) for y in (query, key, value)), is_causal=True, enable_gqa=True
        )
        return parts.o_proj(mixed.transpose(1, 2).flatten(2))


def write_pico(folder, steps, ranks=0):
    """A step of Pico; what a reader must find in it, by its own names, where rows are not sorted.

    Args:
        ranks: of DeepSpeed, which shares masters and moments among them; 0: Fabric without it.
    """
    from safetensors.torch import save_file

    torch.manual_seed(3)
    model = Pico()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    updates(model, [optimizer], steps)
    (folder / "fabric_state").mkdir(parents=True)
    named = {f"pico_decoder.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(
        {name: tensor.clone() for name, tensor in named.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    (folder / "config.json").write_text(json.dumps(Pico.config))
    moments = {name: optimizer.state.get(p, {}) for name, p in model.named_parameters()}
    if ranks:
        halved = {name: tensor.bfloat16() for name, tensor in named.items()}
        save_file(halved, folder / "model.safetensors", metadata={"format": "pt"})
        write_ranks(folder / "fabric_state" / "checkpoint", steps, ranks, dict(model.named_parameters()), moments)
        return SimpleNamespace(model=model, moments=moments)
    random = {"torch": torch.get_rng_state(), "python": (3, tuple(range(5)), None)}
    kept = {"_model": model.state_dict(), "_optimizer": optimizer.state_dict(), "_lr_scheduler": scheduler.state_dict()}
    torch.save(kept | {"_checkpoint_step": steps, "_rng_states": random}, folder / "fabric_state" / "checkpoint.pt")
    return SimpleNamespace(model=model, moments=moments)


def write_ranks(folder, steps, ranks, weights, moments):
    """What Fabric's DeepSpeed strategy leaves of one group in ZeRO stage 2: padded, a rank after the other, in bf16 beside fp32."""
    folder.mkdir()
    shapes = [{name: p.shape for name, p in weights.items()}]
    module = {name: p.detach().bfloat16() for name, p in weights.items()}
    said = {
        "module": module,
        "param_shapes": shapes,
        "global_steps": steps,
        "_checkpoint_step": steps,
        "_lr_scheduler": {},
    }
    torch.save(said, folder / "mp_rank_00_model_states.pt")

    def shares(tensors):
        vector = torch.cat([tensor.detach().flatten() for tensor in tensors])
        return torch.cat([vector, torch.zeros(-len(vector) % (2 * ranks))]).chunk(ranks)

    parts = {part: shares(moments[name][part] for name in weights) for part in ("exp_avg", "exp_avg_sq")}
    for rank, own in enumerate(shares(weights.values())):
        adam = {part: parts[part][rank].clone() for part in parts} | {"step": steps}
        kept = {
            "base_optimizer_state": {"state": {0: adam}},
            "single_partition_of_fp32_groups": [own.clone()],
            "zero_stage": 2,
        }
        torch.save({"optimizer_state_dict": kept}, folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")


def write_crfm(folder, steps, shards=1):
    """A revision of Stanford's GPT-2: one pickle, with causal masks as buffers, scores scaled by layer, softmax in fp32."""
    torch.manual_seed(steps)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=LONGEST,
        scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True,
        resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, attn_implementation="eager",
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    updates(model, [torch.optim.AdamW(model.parameters(), lr=1e-3)], steps, lambda model, tokens: model(tokens).logits)
    config.save_pretrained(folder)
    weights = dict(model.state_dict())
    for layer in range(LAYERS):
        weights[f"transformer.h.{layer}.attn.bias"] = torch.ones(1, 1, LONGEST, LONGEST, dtype=torch.uint8).tril()
        weights[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    if shards == 1:
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        names = list(weights)
        where = {
            name: f"pytorch_model-{i * shards // len(names) + 1:05d}-of-{shards:05d}.bin"
            for i, name in enumerate(names)
        }
        for file in set(where.values()):
            torch.save({name: weights[name] for name in names if where[name] == file}, folder / file)
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    return SimpleNamespace(model=lambda tokens: model(tokens).logits)


OLMO = {
    "d_model": WIDTH, "n_heads": HEADS, "n_kv_heads": None, "n_layers": LAYERS, "mlp_hidden_size": 96, "mlp_ratio": 8,
    "max_sequence_length": LONGEST, "vocab_size": 310, "embedding_size": VOCABULARY, "rope_theta": 500_000,
    "layer_norm_eps": 1e-6, "layer_norm_type": "rms", "activation_type": "swiglu", "weight_tying": False,
    "attention_layer_norm": True, "norm_after": True, "multi_query_attention": False,
}  # fmt: skip


def olmo_names(named):
    """Parameters of `transformers` as OLMo fuses and calls them."""
    made = {
        "transformer.wte.weight": named["model.embed_tokens.weight"],
        "transformer.ln_f.weight": named["model.norm.weight"],
        "transformer.ff_out.weight": named["lm_head.weight"],
    }
    for layer in range(LAYERS):
        here, there = f"model.layers.{layer}", f"transformer.blocks.{layer}"
        made[f"{there}.att_proj.weight"] = torch.cat([named[f"{here}.self_attn.{x}_proj.weight"] for x in "qkv"])
        made[f"{there}.ff_proj.weight"] = torch.cat([named[f"{here}.mlp.{x}_proj.weight"] for x in ("up", "gate")])
        for name, other in (
            ("attn_out", "self_attn.o_proj"), ("q_norm", "self_attn.q_norm"), ("k_norm", "self_attn.k_norm"),
            ("attn_norm", "post_attention_layernorm"), ("ff_out", "mlp.down_proj"), ("ff_norm", "post_feedforward_layernorm"),
        ):  # fmt: skip
            made[f"{there}.{name}.weight"] = named[f"{here}.{other}.weight"]
    return made


def write_olmo(folder, steps):
    torch.manual_seed(4)
    config = Olmo2Config(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        max_position_embeddings=LONGEST, rms_norm_eps=1e-6, pad_token_id=None, eos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
    )  # fmt: skip
    model = Olmo2ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    updates(model, [optimizer], steps, lambda model, tokens: model(tokens).logits)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"run_name": "peteish1", "model": OLMO}))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    torch.save(olmo_names(weights), folder / "model.pt")
    moments = {name: optimizer.state[p] for name, p in model.named_parameters()}
    halves = {
        part: olmo_names({name: kept[part] for name, kept in moments.items()}) for part in ("exp_avg", "exp_avg_sq")
    }
    state = {
        name: {"step": torch.tensor(float(steps))} | {p: halves[p][name] for p in halves} for name in halves["exp_avg"]
    }
    groups = [{"lr": 1e-3, "params": list(state), "param_names": list(state)}]
    torch.save({"state": state, "param_groups": groups}, folder / "optim.pt")
    torch.save(
        {"global_step": steps, "global_train_tokens_seen": 64 * steps, "rng": {"torch": torch.get_rng_state()}},
        folder / "train.pt",
    )
    return SimpleNamespace(model=lambda tokens: model(tokens).logits, moments=moments)


class NanoChat(nn.Module):
    """nanochat's GPT of 2025: norms without weights, rotary positions before the norm of queries and keys, relu², capped logits."""

    def __init__(self):
        super().__init__()

        def block():
            made = nn.Module()
            made.attn, made.mlp = nn.Module(), nn.Module()
            for name in ("c_q", "c_k", "c_v", "c_proj"):
                setattr(made.attn, name, nn.Linear(WIDTH, WIDTH, bias=False))
            made.mlp.c_fc, made.mlp.c_proj = (
                nn.Linear(WIDTH, 4 * WIDTH, bias=False),
                nn.Linear(4 * WIDTH, WIDTH, bias=False),
            )
            return made

        layers = nn.ModuleList(block() for _ in range(LAYERS))
        self.transformer = nn.ModuleDict({"wte": nn.Embedding(VOCABULARY, WIDTH), "h": layers})
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens):
        norm = lambda x: F.rms_norm(x, (x.size(-1),))  # noqa: E731
        x = norm(self.transformer.wte(tokens))
        for block in self.transformer.h:
            x = x + self.attended(block.attn, norm(x), norm)
            x = x + block.mlp.c_proj(F.relu(block.mlp.c_fc(norm(x))).square())
        return 15 * torch.tanh(self.lm_head(norm(x)) / 15)

    def attended(self, parts, x, norm):
        width, length = WIDTH // HEADS, x.shape[1]
        turn = torch.outer(torch.arange(length), 10_000.0 ** -(torch.arange(0, width, 2) / width))[None, :, None]

        def rotated(y):
            first, second = y.view(*x.shape[:2], HEADS, width).chunk(2, dim=-1)
            return norm(
                torch.cat([first * turn.cos() + second * turn.sin(), second * turn.cos() - first * turn.sin()], -1)
            )

        value = parts.c_v(x).view(*x.shape[:2], HEADS, width)
        heads = [y.transpose(1, 2) for y in (rotated(parts.c_q(x)), rotated(parts.c_k(x)), value)]
        return parts.c_proj(F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2))


class Muon(torch.optim.Optimizer):
    """Momentum, and steps whose size is that of a matrix's sign: what is kept is as nanochat's Muon keeps it."""

    def __init__(self, groups):
        super().__init__([{"params": group} for group in groups], {"lr": 1e-3})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                buffer.lerp_(p.grad, 0.05)
                p.add_(buffer.sign(), alpha=-group["lr"])


def write_nanochat(folder, steps, ranks=1):
    """`model_…`, `meta_…` and the optimizers' states; with several ranks AdamW's are cut along rows, Muon's owned in turn."""
    torch.manual_seed(5)
    model = NanoChat()
    matrices = list(model.transformer.h.parameters())
    alike = [[p for p in matrices if (p.numel() if ranks == 1 else p.shape) == key]
             for key in sorted({p.numel() if ranks == 1 else p.shape for p in matrices})]  # fmt: skip
    adamw = torch.optim.AdamW([{"params": [model.lm_head.weight]}, {"params": [model.transformer.wte.weight]}], lr=1e-3)
    muon = Muon(alike)
    updates(model, [adamw, muon], steps)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / f"model_{steps:06d}.pt")
    said = {
        "sequence_len": LONGEST,
        "vocab_size": 300,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_kv_head": HEADS,
        "n_embd": WIDTH,
    }
    (folder / f"meta_{steps:06d}.json").write_text(
        json.dumps({"step": steps, "val_bpb": math.nan, "model_config": said})
    )
    for rank in range(ranks):
        kept = [of_rank(optimizer.state_dict(), rank, ranks, owned=optimizer is muon) for optimizer in (adamw, muon)]
        torch.save(kept, folder / f"optim_{steps:06d}_rank{rank}.pt")
    return SimpleNamespace(model=model, adamw=adamw, muon=muon, moments=None)


def of_rank(state, rank, ranks, *, owned):
    """What one rank has of a state."""
    if ranks == 1:
        return state
    places = {number: place for group in state["param_groups"] for place, number in enumerate(group["params"])}
    if owned:
        return state | {
            "state": {number: kept for number, kept in state["state"].items() if places[number] % ranks == rank}
        }
    cut = {
        number: {part: value.chunk(ranks)[rank].clone() if value.dim() else value for part, value in kept.items()}
        for number, kept in state["state"].items()
    }
    return state | {"state": cut}
