"""Training that is swept for influence, and its scores as plain numbers."""

from mech_pipeline.attribution.influence.influence import Target, influence_sweep
from mech_pipeline.attribution.influence.replay import Replayed
from mech_pipeline.mechanisms.registry import MECHANISMS
from mech_pipeline.training.update.optimizer import State

STEPS = 9


def train(trainer, until=STEPS):
    return list(trainer.updates(State.initial(initial_theta(trainer)), until))


def initial_theta(trainer):
    if not hasattr(trainer, "theta_0"):
        trainer.theta_0 = trainer.flat.vector.clone()
    return trainer.theta_0


def target_of(trainer, probe, mechanism, update, horizon=None):
    """The mechanism after an update."""
    trainer.flat.load(update.after.theta)
    gradient = trainer.flat.gradient(MECHANISMS[mechanism].value(trainer.flat.model, probe))
    return Target(mechanism, update.after.step, gradient, horizon)


def windows_of(updates, window=4):
    """The updates cut into windows, last first, without graphs."""
    chunks = [updates[i : i + window] for i in range(0, len(updates), window)]
    return [lambda chunk=chunk: [Replayed(made) for made in chunk] for chunk in reversed(chunks)]


def sweep_all(trainer, targets, windows, **more):
    """Scores of each target as {(update step, pool index): score}; an example that came twice is summed."""
    found = [{} for _ in targets]
    for part in influence_sweep(trainer, targets, windows, **more):
        for example, score in zip(part.made.examples.tolist(), part.scores.tolist(), strict=True):
            cell = part.step, example
            found[part.target][cell] = found[part.target].get(cell, 0.0) + score
    return found


def sweep(trainer, updates, probe, mechanism, window=4):
    """All scores as {(update step, pool index): score}."""
    return sweep_all(trainer, [target_of(trainer, probe, mechanism, updates[-1])], windows_of(updates, window))[0]
