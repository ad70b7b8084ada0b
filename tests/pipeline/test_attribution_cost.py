"""What ledger, influence and retraining are expected to cost, against counts made by hand."""

import pytest

from mech_pipeline.pipeline.attribution_cost import attribution_cost
from tests.support.tiny import spec_of

NAMES = {"mechanisms": ["induction_copy_advantage"]}


@pytest.mark.parametrize(
    ("influence", "updates"),
    [
        # 24 updates at most: 2 for graph and replay, 2 for the target, 2 perturbed
        (NAMES, 24 * 6),
        (NAMES | {"metasmoothness_steps": 0}, 24 * 4),
        # targets 12 and 24, of which 12 updates are swept for both
        (NAMES | {"at": [12, 24], "metasmoothness_steps": 0}, 24 * 2 + (12 + 24) * 2),
        # 4 updates before each target
        (NAMES | {"at": [12, 24], "horizon": 4, "metasmoothness_steps": 0}, 8 * 2 + 8 * 2),
        (NAMES | {"methods": ["gradient_dot"]}, 0),
        # 3 trajectories: training 1, graph and replay 2, the target 2; 24 updates exactly as well, without metasmoothness
        (NAMES | {"methods": ["adjoint_mean"], "adjoint_mean": {"trajectories": 3}}, 3 * 24 * 5),
        (
            NAMES
            | {"methods": ["adjoint", "adjoint_mean"], "adjoint_mean": {"trajectories": 3}, "metasmoothness_steps": 0},
            24 * 4 + 3 * 24 * 5,
        ),
        ({}, 0),
    ],
)
def test_influence_counts_every_update_that_is_swept(influence, updates):
    assert attribution_cost(spec_of(influence=influence)).influence == updates


def test_retraining_trains_up_to_the_last_target_once_for_each_removal_and_once_without():
    asked = NAMES | {"at": [12], "retraining": {"fractions": [0.1, 0.2], "subsets": 3, "top": [0.1]}}
    assert attribution_cost(spec_of(influence=asked)).retraining == 12 * (1 + 2 * 3 + 1)
    assert attribution_cost(spec_of()).retraining == 0


def test_a_run_that_is_not_selected_has_no_ledger():
    assert attribution_cost(spec_of(0)).ledger == 24 * 3
    assert attribution_cost(spec_of(1)).ledger == 0, "by default seed 0 alone"
