"""What an experiment may ask of signals, and what is refused before anything is trained."""

import pytest

from mech_pipeline.errors import MechError
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.spec.fingerprint import fingerprint
from tests.support.tiny import MINIMAL

SCORED = {
    "measure": ["elapsed_step"],
    "events": ["event"],
    "negatives": ["none"],
    "explore_seeds": [0, 1],
    "claim": 0.10,
}


def asked(seeds=31, **change):
    return parse_experiment(
        MINIMAL | {"seeds": list(range(seeds)), "arms": {"event": {}, "none": {}}, "signals": SCORED | change}
    )


def test_signals_are_measured_on_the_runs_that_are_selected():
    experiment = parse_experiment(MINIMAL | {"signals": {"measure": ["elapsed_step"], "seeds": [0]}, "seeds": [0, 1]})
    assert [run.signals for run in experiment.runs()] == [("elapsed_step",), ()]


def test_runs_without_signals_have_the_fingerprints_they_had():
    (run,) = parse_experiment(MINIMAL).runs()
    assert "signals" not in run.model_dump()
    assert fingerprint(parse_experiment(MINIMAL)) == fingerprint(parse_experiment(MINIMAL | {"signals": {}}))


def test_enough_unseen_negatives_are_accepted():
    assert asked().signals.scored
    assert asked(61, claim=0.05).signals.scored


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"claim": 0.05}, "below 0.05 needs 59 negative runs that are not explored, .* there are 29"),
        ({"seeds": 30}, "below 0.1 needs 29 negative runs .* there are 28"),
        ({"negatives": []}, "negatives is empty"),
        ({"events": []}, "events is empty"),
        ({"explore_seeds": []}, "explore_seeds is empty"),
        ({"explore_seeds": [77]}, "no event run has one of them"),
        ({"explore_seeds": list(range(31))}, "no run is left to evaluate"),
        ({"negatives": ["event"]}, "among events and among negatives"),
        ({"negatives": ["nome"]}, "signals.unknown arm 'nome'; did you mean 'none'"),
        ({"event": "induction"}, "signals.event: did you mean 'induction_copy_advantage'"),
        ({"measure_arms": 1}, "unknown field"),
        ({"arms": ["event"]}, "arm none is scored, and of its seed 0 no signal is measured"),
    ],
)
def test_what_cannot_be_shown_is_refused(change, said):
    with pytest.raises(MechError, match=said):
        asked(**change)


def test_an_unknown_signal_is_named_with_what_was_meant():
    experiment = parse_experiment(MINIMAL | {"signals": {"measure": ["parameter_nrom"]}})
    with pytest.raises(
        MechError, match=r"signals.measure: unknown name 'parameter_nrom'; did you mean 'parameter_norm'"
    ):
        resolve(experiment)
