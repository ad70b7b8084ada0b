"""Small experiments whose arms choose examples, computed in this process, and the bits of what they kept."""

import copy

import numpy as np
from safetensors.numpy import load as load_arrays

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline.alone import compute_all
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.reading.query import query
from tests.support import tiny

NAME = "induction_copy_advantage"
QUICK = {
    "seeds": [0],
    "detectors": [],
    "gradients": [],
    "training": {"steps": 12, "batch": 8},
    "checkpoints": {"every": 6},
    "formation": [{"mechanism": NAME, "threshold": -99.0, "sustain": 1}],
    "influence": {"mechanisms": [NAME], "metasmoothness_steps": 0, "at": [12]},
}


def experiment_of(arms, **change):
    """The tiny experiment, quick, with a baseline and arms that choose."""
    content = copy.deepcopy(tiny.TINY) | QUICK | change
    content["arms"] = {"baseline": {}} | {name: {"choose": choice} for name, choice in arms.items()}
    return resolve(parse_experiment(content))


def compute(store, experiment):
    """Computes everything but the report and what keeps the store in order; (stage, run) of what was not current, in order."""
    specs = experiment.runs()
    corpora = {spec.run: corpus_sha256(read_corpus(spec.corpus)) for spec in specs}
    return compute_all(store, specs, corpora, experiment, without=("report", "compaction"))


def states(store, run):
    """Tensors and version of every kept state of a run, by step."""
    rows = query(
        store.root, f"select step, uri, data_version from checkpoints where run = '{run}' order by step"
    ).rows()
    return {step: (load_arrays(store.files.read(uri)), version) for step, uri, version in rows}


def assert_same_bits(one, other):
    """Two runs kept the same states: weights, moments and versions."""
    assert one.keys() == other.keys()
    for step in one:
        (tensors, version), (others, other_version) = one[step], other[step]
        assert version == other_version
        assert tensors.keys() == others.keys()
        assert any(name.startswith("exp_avg_sq.") for name in tensors)
        for name, tensor in tensors.items():
            assert np.array_equal(tensor.view(np.uint8), others[name].view(np.uint8)), (step, name)
