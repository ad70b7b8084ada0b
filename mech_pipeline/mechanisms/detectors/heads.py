"""Detectors: what each attention head does, on sequences that repeat once with random period.

Positions without a target do not count, so a perfect head scores 1 (TransformerLens' `detect_head` divides by all
positions and tops out near 0.5). An attention score is a description, not a cause: it does not show that the model
uses the head.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mech_pipeline.mechanisms.probe import Probe
from mech_pipeline.mechanisms.tasks.induction import previous_token_score
from mech_pipeline.training.bridge_type import TransformerBridge

Pattern = Float[Tensor, "example head query key"]
Tokens = Int[Tensor, "example token"]
SUPPRESSED = 10
"""Ranks at the bottom that count as suppressed."""
TESTED = 1024
"""Most tokens whose rank is looked at."""


def duplicate_token_score(pattern: Pattern, tokens: Tokens) -> Float[Tensor, " head"]:
    """Mean attention from each repeated token to its earlier copies.

    1: a perfect duplicate-token head; uniform attention: about 1/position.
    Source: Wang et al. 2022, §3.2.

    Raises:
        ValueError: no token occurs twice, so the score is undefined.
    """
    return mean_attention(pattern, _earlier_copies(tokens))


def prefix_matching_score(pattern: Pattern, tokens: Tokens) -> Float[Tensor, " head"]:
    """Mean attention from each repeated token to the tokens that followed its earlier occurrences.

    1: a perfect induction head; uniform attention: about 1/position.
    Source: Olsson et al. 2022, definitions of head types.

    Raises:
        ValueError: no token occurs twice, so the score is undefined.
    """
    successors = torch.roll(_earlier_copies(tokens), shifts=1, dims=-1)
    successors[..., 0] = False
    return mean_attention(pattern, successors)


def mean_attention(
    pattern: Pattern, targets: Bool[Tensor, "example query key"], repeats: str = "token"
) -> Float[Tensor, " head"]:
    """Attention mass on the targets, averaged over the queries that have any.

    Args:
        repeats: what must occur twice for a query to have a target, for the error.
    """
    has_target = targets.any(dim=-1)
    if not bool(has_target.any()):
        raise ValueError(f"no {repeats} occurs twice, so the score is undefined")
    mass = (pattern * targets[:, None]).sum(dim=-1)  # [example, head, query]
    return (mass * has_target[:, None]).sum(dim=(0, 2)) / has_target.sum()


def copying_score(ov_circuit: Float[Tensor, "head d_head d_head"]) -> Float[Tensor, " head"]:
    """Σ λ / Σ |λ| over the eigenvalues λ of a head's full OV circuit W_U W_O W_V W_E, in [−1, 1].

    1: attending to a token raises that token's own logit, for every combination of tokens; −1: lowers it; a head
    without copying structure is near 0. The non-zero eigenvalues of the [vocabulary, vocabulary] matrix are those
    of the cyclic product W_V W_E W_U W_O, [d_head, d_head], which is what is passed in.
    Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits", copying heads.
    """
    eigenvalues = torch.linalg.eigvals(ov_circuit.double())
    return (eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1).clamp_min(1e-30)).to(ov_circuit.dtype)


def previous_token(bridge: TransformerBridge, patterns: list[Pattern], probe: Probe) -> Float[Tensor, "layer head"]:
    """Mean attention i → i − 1."""
    return torch.stack([previous_token_score(pattern) for pattern in patterns])


def duplicate_token(bridge: TransformerBridge, patterns: list[Pattern], probe: Probe) -> Float[Tensor, "layer head"]:
    """Attention to earlier copies of the same token."""
    return torch.stack([duplicate_token_score(pattern, probe.random.tokens) for pattern in patterns])


def prefix_matching(bridge: TransformerBridge, patterns: list[Pattern], probe: Probe) -> Float[Tensor, "layer head"]:
    """Attention to what followed earlier copies of the same token."""
    return torch.stack([prefix_matching_score(pattern, probe.random.tokens) for pattern in patterns])


def copying(bridge: TransformerBridge, patterns: list[Pattern], probe: Probe) -> Float[Tensor, "layer head"]:
    """Whether the OV circuit raises the logit of the attended token; the direct path, whatever the layer."""
    embed, unembed = bridge.W_E, bridge.W_U  # [vocabulary, d_model], [d_model, vocabulary]
    between = unembed @ embed  # d_model × d_model: from the residual stream through logits back to embeddings
    values, outputs = bridge.W_V, bridge.W_O  # [layer, head, d_model, d_head], [layer, head, d_head, d_model]
    values = values.repeat_interleave(outputs.shape[1] // values.shape[1], dim=1)  # heads that share values
    circuits = outputs @ between @ values
    return torch.stack([copying_score(layer) for layer in circuits])


def copy_suppression(bridge: TransformerBridge, patterns: list[Pattern], probe: Probe) -> Float[Tensor, "layer head"]:
    """Share of tokens whose own logit a head would lower to the bottom, minus the share that it would raise to the top.

    W_E W_V W_O W_U, row by row: the token's own logit is among the SUPPRESSED smallest of its row (at most a twentieth of
    the vocabulary), or among as many largest. 1: attending to any token suppresses it; −1: a copying head; about 0 by
    chance. Whether the head attends to what is predicted, the other half of copy suppression, is not in it, nor are
    norms, biases and the first MLP. Of large vocabularies at most TESTED tokens, evenly spaced, are looked at.
    Source: McDougall et al. 2023, "Copy Suppression", OV circuit (own logit among the ten most suppressed).
    """
    embed, unembed = bridge.W_E, bridge.W_U
    size = embed.shape[0]
    token = torch.linspace(0, size - 1, min(size, TESTED), dtype=torch.float64).round().long().to(embed.device)
    few = max(1, min(SUPPRESSED, size // 20))
    values, outputs = bridge.W_V, bridge.W_O
    values = values.repeat_interleave(outputs.shape[1] // values.shape[1], dim=1)  # heads that share values
    scores = torch.zeros(outputs.shape[:2])
    for layer, head in np.ndindex(*outputs.shape[:2]):
        logits = embed[token] @ values[layer, head] @ outputs[layer, head] @ unembed
        own = logits.gather(1, token[:, None])
        below, above = (logits < own).sum(1), (logits > own).sum(1)
        scores[layer, head] = (below < few).float().mean() - (above < few).float().mean()
    return scores


def _earlier_copies(tokens: Tokens) -> Bool[Tensor, "example query key"]:
    """True where the key is an earlier position with the query's token."""
    same = tokens[:, :, None] == tokens[:, None, :]
    return same.tril(diagonal=-1)
