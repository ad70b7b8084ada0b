"""What made the neurons of a tiny training."""

from mech_pipeline.attribution.ledger.neurons import neuron_account
from mech_pipeline.training.update.optimizer import State
from tests.support.models import VOCABULARY, components

BEGIN, END = 5, 13


def account_of(trainer, bounds=(BEGIN, END), contexts=3):
    states = {0: State.initial(trainer.flat.vector)}
    for made in trainer.updates(states[0], END):
        states[made.after.step] = made.after
    parts = components(trainer, neurons=True)
    return (
        states,
        parts,
        neuron_account(trainer, parts, states.__getitem__, bounds, vocabulary=VOCABULARY, contexts=contexts),
    )
