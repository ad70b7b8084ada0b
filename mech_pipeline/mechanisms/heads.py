"""Detectors: what each attention head does, on sequences that repeat once with random period.

Positions without a target do not count, so a perfect head scores 1 (TransformerLens' `detect_head` divides by all
positions and tops out near 0.5). An attention score is a description, not a cause: it does not show that the model
uses the head.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge.bridge import TransformerBridge

from mech_pipeline.mechanisms.induction import previous_token_score
from mech_pipeline.mechanisms.probe import Probe

Pattern = Float[Tensor, "example head query key"]
Tokens = Int[Tensor, "example token"]


def duplicate_token_score(pattern: Pattern, tokens: Tokens) -> Float[Tensor, " head"]:
    """Mean attention from each repeated token to its earlier copies.

    1: a perfect duplicate-token head; uniform attention: about 1/position.
    Source: Wang et al. 2022, §3.2.

    Raises:
        ValueError: no token occurs twice, so the score is undefined.
    """
    return _mean_attention(pattern, _earlier_copies(tokens))


def prefix_matching_score(pattern: Pattern, tokens: Tokens) -> Float[Tensor, " head"]:
    """Mean attention from each repeated token to the tokens that followed its earlier occurrences.

    1: a perfect induction head; uniform attention: about 1/position.
    Source: Olsson et al. 2022, definitions of head types.

    Raises:
        ValueError: no token occurs twice, so the score is undefined.
    """
    successors = torch.roll(_earlier_copies(tokens), shifts=1, dims=-1)
    successors[..., 0] = False
    return _mean_attention(pattern, successors)


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


def _earlier_copies(tokens: Tokens) -> Bool[Tensor, "example query key"]:
    """True where the key is an earlier position with the query's token."""
    same = tokens[:, :, None] == tokens[:, None, :]
    return same.tril(diagonal=-1)


def _mean_attention(pattern: Pattern, targets: Bool[Tensor, "example query key"]) -> Float[Tensor, " head"]:
    """Attention mass on the targets, averaged over the queries that have any."""
    has_target = targets.any(dim=-1)
    if not bool(has_target.any()):
        raise ValueError("no token occurs twice, so the score is undefined")
    mass = (pattern * targets[:, None]).sum(dim=-1)  # [example, head, query]
    return (mass * has_target[:, None]).sum(dim=(0, 2)) / has_target.sum()
