"""A tiny experiment whose arms choose examples, and all its stages one after another."""

import copy

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline.alone import compute_all
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from tests.support import tiny

NAME = "induction_copy_advantage"
QUICK = {
    "seeds": [0, 1],
    "detectors": [],
    "gradients": [],
    "training": {"steps": 12, "batch": 8},
    "checkpoints": {"every": 3},
    "mechanisms": [NAME],
    "formation": [{"mechanism": NAME, "threshold": -99.0, "sustain": 1}],
    "influence": {"mechanisms": [NAME], "metasmoothness_steps": 0, "at": [12], "arms": ["baseline"], "seeds": "all"},
    "ledger": {},
}
CHOOSE = {"by": "influence", "share": 0.2, "at": 12}
ARMS = {
    "baseline": {},
    "less": {"choose": CHOOSE | {"share": 0.1}},
    "top": {"choose": CHOOSE},
    "matched": {"choose": {"like": "top", "alike": ["kind", "length"]}},
    "twice": {"choose": CHOOSE | {"do": "duplicate", "window": [3, 6]}},
    "placebo": {"choose": CHOOSE | {"do": "weight", "weight": 1.0}},
    "faster": {"optimizer": {"learning_rate": 0.01}},
}


def experiment_of(arms=ARMS, **change):
    """The experiment; its text must lie in the current folder."""
    return resolve(parse_experiment(copy.deepcopy(tiny.TINY) | QUICK | {"arms": arms} | change))


def compute(store, experiment):
    """Everything that is not current, with what worked in which order."""
    specs = experiment.runs()
    corpora = {spec.run: corpus_sha256(read_corpus(spec.corpus)) for spec in specs}
    return compute_all(store, specs, corpora, experiment)
