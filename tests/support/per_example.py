"""Scores of single examples, the slow and obvious way."""

import torch
from torch.func import functional_call

from mech_pipeline.training.model import example_losses
from tests.support.models import VOCABULARY

PRECISIONS = [(torch.float64, 1e-13), (torch.float32, 1e-6)]


def random_directions(trainer, count):
    generator = torch.Generator().manual_seed(1)
    drawn = torch.randn(count, len(trainer.flat.vector), generator=generator, dtype=trainer.flat.vector.dtype)
    return drawn.to(trainer.device)


def one_backward_per_example(trainer, parts, tokens, directions):
    slow = torch.zeros(len(directions), len(tokens), len(parts.names), dtype=torch.float64, device=trainer.device)
    for row, example in enumerate(tokens):
        gradient = trainer.flat.gradient(example_losses(trainer.flat.model, example[None])[0])
        for index, direction in enumerate(directions):
            slow[index, row] = parts.sums(gradient * direction)
    return slow


def assert_close(fast, slow, tolerance):
    assert fast.shape == slow.shape
    assert (fast - slow).abs().max() / slow.abs().max() < tolerance


def weights_of_each_position(trainer, tokens, direction):
    """d/dε_{i,t} of Σ ℓ_i where every module adds ε_{i,t} times what it would give with V for parameters."""
    model, named = trainer.flat.model, trainer.flat.named(direction)
    shared = {id(parameter): named[name] for name, parameter in model.named_parameters()}
    epsilon = torch.zeros(len(tokens), tokens.shape[1] - 1, dtype=direction.dtype, requires_grad=True)
    inside = False

    def nudge(module, inputs, output):
        nonlocal inside
        if inside:
            return output
        inside = True
        own = {name: shared[id(p)] for name, p in module.named_parameters(recurse=False)}
        along = functional_call(module, own, (inputs[0].detach(),))
        inside = False
        return output + epsilon[:, :, None] * along

    holders = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    hooks = [module.register_forward_hook(nudge) for module in holders]
    (gradient,) = torch.autograd.grad(example_losses(model, tokens).sum(), epsilon)
    for hook in hooks:
        hook.remove()
    return gradient


def by_jacobian(trainer, tokens):
    """G from the whole Jacobian of the logits, a row per logit."""

    def logits(theta):
        return functional_call(trainer.flat.model, trainer.flat.named(theta), (tokens[:, :-1],)).flatten()

    theta = trainer.flat.vector.clone()
    jacobian = torch.func.jacrev(logits)(theta).view(-1, VOCABULARY, len(theta))
    p = torch.softmax(logits(theta).view(-1, VOCABULARY), dim=-1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("tvp,tvw,twq->pq", jacobian, inner, jacobian) / len(p)
