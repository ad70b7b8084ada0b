"""Peer libraries on the same model and examples, in a virtual environment of their own.

Each runs in a process of its own (`attribution_peer_run.py`, in the environment of `attribution_environment.py`), which
times itself against a plain forward and backward there. A library that cannot be installed or run gets a row that says
why; nothing else fails.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from attribution_environment import PEERS, install, is_installed, last_line
from attribution_timing import in_turns
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from store_measure import Result, Say
from torch import Tensor, nn

from mech_pipeline.attribution.per_example.capture import Factors, example_factors
from mech_pipeline.attribution.per_example.components import components_of
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.spec.model import Model
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model, example_losses

SPEC = Model(family="gpt_neox", layers=2, heads=4, d_model=128, d_mlp=512)
VOCABULARY, CONTEXT, QUERIES, BATCH = 2048, 128, 8, 16
_DESCRIBED = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "rope_parameters",
    "tie_word_embeddings",
    "bos_token_id",
    "eos_token_id",
    "use_cache",
)


def measure_peers(environment: Path, at: Path, say: Say, examples: int, turns: int) -> list[Result]:
    """Each peer's time relative to a forward and backward in its process, and its agreement with our scores."""
    python = environment / "bin" / "python"
    missing = {} if is_installed(python) else install(environment, say)
    flat, tokens, directions = export(at, examples)
    own = our_own(flat, tokens, directions, turns)
    results = [
        Result("peers", f"ours, {QUERIES} directions per {what}: time, all parameters", ratio, "×", None, 1.0, "ours")
        for what, (ratio, _) in own.items()
    ]
    for peer, release in PEERS.items():
        for what in ("example", "token"):
            say(f"peers: {release}, per {what}")
            fault = missing.get(peer) or _run(python, peer, at, what, turns)
            title = f"{release}, {QUERIES} queries per {what}"
            if fault:
                results.append(Result("peers", f"{title}: {fault}", float("nan"), ""))
                continue
            results += _results(title, at, flat, tokens, directions, own[what][1])
    return results


def our_own(flat: FlatModel, tokens: Tensor, directions: Tensor, turns: int) -> dict[str, tuple[float, float]]:
    """Per example and per token: our time relative to a forward and backward, and our seconds an example."""
    contraction = Contraction(flat, components_of(flat, SPEC.heads))
    parts = tokens.split(BATCH)

    def factors() -> Iterator[Factors]:
        return (example_factors(flat.model, part) for part in parts)

    acts = {
        "plain": lambda: [flat.gradient(example_losses(flat.model, part).mean()) for part in parts],
        "example": lambda: [contraction(each, directions) for each in factors()],
        "token": lambda: [contraction.per_token(each, directions) for each in factors()],
    }
    seconds = in_turns(acts, turns)
    return {
        what: (
            median(ours / plain for ours, plain in zip(seconds[what], seconds["plain"], strict=True)),
            median(seconds[what]) / len(tokens),
        )
        for what in ("example", "token")
    }


def export(at: Path, examples: int) -> tuple[FlatModel, Tensor, Tensor]:
    """Writes the model and random tokens; returns the model, the examples, and the queries' gradients."""
    model = build_model(SPEC, VOCABULARY, CONTEXT, 0)
    save_file({name: p.detach().clone() for name, p in model.named_parameters()}, at / "model.safetensors")
    described = {name: getattr(model.config, name) for name in _DESCRIBED} | {"attn_implementation": "eager"}
    (at / "config.json").write_text(json.dumps(described))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCABULARY, (examples + QUERIES, CONTEXT), generator=generator)
    save_file({"tokens": tokens[QUERIES:].clone(), "queries": tokens[:QUERIES].clone()}, at / "tokens.safetensors")
    flat = FlatModel(model)
    gradients = [flat.gradient(example_losses(model, query[None])[0]) for query in tokens[:QUERIES]]
    return flat, tokens[QUERIES:], torch.stack(gradients)


def _run(python: Path, peer: str, at: Path, what: str, turns: int) -> str:
    """Runs one peer; returns why it failed, or nothing."""
    script = Path(__file__).parent / "attribution_peer_run.py"
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [str(python), str(script), peer, str(at), str(BATCH), str(turns), what]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=offline, cwd=at, timeout=1800)
    except subprocess.TimeoutExpired:
        return "not finished in half an hour"
    return "" if done.returncode == 0 else f"failed: {last_line(done.stderr)}"


def _results(
    title: str, at: Path, flat: FlatModel, tokens: Tensor, directions: Tensor, our_seconds: float
) -> list[Result]:
    spent = json.loads((at / "seconds.json").read_text())
    slower = median(spent["peer"]) / spent["examples"] / our_seconds
    ratio = median(peer / plain for peer, plain in zip(spent["peer"], spent["plain"], strict=True))
    scores = load_file(at / "scores.safetensors")["scores"].double()
    ours, covered = closest(scores, flat, tokens, directions)
    difference = float((scores - ours).abs().max() / ours.abs().max())
    rank = float(spearmanr(scores.flatten(), ours.flatten())[0])
    return [
        Result("peers", f"{title}: time, {covered}", ratio, "×", None, slower, "ours"),
        Result("peers", f"{title}: largest difference from ours, relative", difference, ""),
        Result("peers", f"{title}: rank correlation with ours", rank, ""),
    ]


def closest(scores: Tensor, flat: FlatModel, tokens: Tensor, directions: Tensor) -> tuple[Tensor, str]:
    """Our scores over the parameters that the peer covers: all, or those of linear layers, whichever is nearer."""
    contraction = Contraction(flat, components_of(flat, SPEC.heads))
    factors = example_factors(flat.model, tokens)
    linear = {name: f for name, f in factors.items() if isinstance(flat.model.get_submodule(name), nn.Linear)}

    def ours(of: Factors) -> Tensor:
        if scores.dim() == 2:
            return contraction(of, directions).sum(-1).T
        found = contraction.per_token(of, directions).transpose(0, 1)
        return torch.nn.functional.pad(found, (0, scores.shape[2] - found.shape[2]))  # a last position without a loss

    candidates = {"all parameters": ours(factors), "linear layers": ours(linear)}
    name = min(candidates, key=lambda name: float((scores - candidates[name]).abs().max()))
    return candidates[name], name
