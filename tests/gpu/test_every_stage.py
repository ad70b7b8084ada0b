"""Every stage of a run on a GPU, in a real store: the same stages as on the CPU, on the same tiny experiment."""

import json

import pytest

from mech_pipeline.attribution.influence import influence as attribution_influence
from mech_pipeline.pipeline import cost, report
from mech_pipeline.pipeline.analysis import analysis, circuits, formation, neurons
from mech_pipeline.pipeline.analysis import wanted as analysis_cells
from mech_pipeline.pipeline.influence import influence, sweep
from mech_pipeline.pipeline.influence import wanted as influence_cells
from mech_pipeline.pipeline.ledger import ledger
from mech_pipeline.pipeline.ledger import wanted as ledger_cells
from mech_pipeline.pipeline.retraining import lds, retraining
from mech_pipeline.pipeline.retraining import wanted as retraining_cells
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.training import batches, stack, training
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from tests.support import tiny
from tests.support.gpu import KIND, NEEDS_GPU
from tests.support.ranks import RUN, torchrun

pytestmark = NEEDS_GPU
COPY, PREVIOUS = "induction_copy_advantage", "previous_token_attention"
ON_GPU = {"steps": 24, "batch": 8, "micro_batches": 2, "device": KIND}
EVERYTHING = {
    "training": ON_GPU,
    "model": {"layers": 2, "heads": 2, "d_model": 16, "d_mlp": 32, "normalization": "layer_norm"},
    "detectors": ["previous_token", "prefix_matching", "duplicate_token", "copying"],
    "ledger": {"mechanisms": [COPY], "weights": True, "tokens": ["position", "target"], "neurons": True},
    "circuits": {"mechanisms": [COPY], "every": 24, "random_orders": 1},
    "neurons": {"windows": [[0, 24]], "tokens": 4, "contexts": 2, "ablated": 8},
    "in_training": {"mechanisms": [COPY, PREVIOUS]},
    "influence": {
        "mechanisms": [COPY, PREVIOUS],
        "at": [12, 24],
        "methods": ["adjoint", "gradient_dot", "gradient_dot_adam", "gauss_newton", "sketch"],
        "sketch_size": 64,
        "tokens": True,
        "components": True,
        "retraining": {"fractions": [0.1], "subsets": 4, "top": [0.1]},
    },
    "seeds": [0],
    "arms": {"baseline": {}},
}


def trained(store, **change):
    spec = tiny.spec_of(**change)
    tiny.prepare(store, spec)
    training.train(store, spec)
    return OpenRun(store, spec)


def test_every_stage_computes_what_is_asked_and_leaves_nothing(folder):
    run = trained(Store(folder / "store"), **EVERYTHING)
    assert run.trainer.device.type != "cpu" or KIND == "cpu"
    batches.write_batches(run.store, run.spec)
    analysis.analyse(run, analysis_cells.OUTPUTS, run.planned)
    formation.compute_formation(run.store, run.spec)
    circuits.compute_circuits(run, run.planned)
    neurons.compute_neurons(run, run.planned)
    ledger.compute_ledger(run, run.planned)  # raises where a window does not balance
    influence.compute_influence(run, [12, 24])
    retraining.compute_retrainings(run, 24)
    lds.compute_lds(run, 24)
    left = [
        ledger_cells.pending(run, run.planned),
        influence_cells.pending(run, [12, 24]),
        retraining_cells.pending(run, 24),
    ]
    left += [analysis_cells.pending_circuits(run, run.planned), analysis_cells.pending_neurons(run, run.planned)]
    assert left == [[]] * 5
    assert not any(analysis_cells.pending(run, analysis_cells.OUTPUTS, run.planned).values())
    counted = "select count(*) from {}"
    for table in (
        "in_training",
        "ledger_tokens",
        "influence_tokens",
        "retrainings",
        "neurons",
        "circuits",
        "gradients",
    ):
        assert query(run.store.root, counted.format(table)).item() > 0, table
    smooth = query(run.store.root, "select value from reliability where metric = 'metasmoothness'")
    assert len(smooth) > 0
    assert all(-1 <= value <= 1 for value in smooth["value"])
    content = tiny.TINY | EVERYTHING
    made = report.make_report(run.store, parse_experiment(content))
    assert made is not None
    assert not verify_store(run.store.files).damage
    (device,) = query(run.store.root, "select device from runs")["device"]
    assert device.startswith(KIND)
    assert json.loads(query(run.store.root, "select versions from runs").item())["torch"]


@pytest.mark.parametrize("change", [{}, {"precision": "bf16"}, {"attention": "fused"}], ids=str)
def test_a_run_that_stops_half_way_has_the_bits_of_one_that_does_not(folder, change):
    wanted = {"training": ON_GPU | change, "ledger": {}, "influence": {}}
    whole = trained(Store(folder / "whole"), **wanted)
    store = Store(folder / "parts")
    trained(store, **wanted | {"training": ON_GPU | change | {"steps": 11}})
    run = trained(store, **wanted)
    expected = tiny.checkpoint_hashes(whole.store, RUN)
    assert {step: tiny.checkpoint_hashes(store, RUN)[step] for step in expected} == expected
    for begin, end in run.windows(24):
        run.replay(begin, end)  # raises where it does not reach the checkpoint


def test_seeds_train_together_and_replay_alone_bit_for_bit(folder):
    seeds = {"training": ON_GPU | {"stacked": True}, "seeds": [0, 1, 2], "arms": {"baseline": {}}, "influence": {}}
    specs = [tiny.spec_of(index, **seeds) for index in range(3)]
    store, alone = Store(folder / "store"), Store(folder / "alone")
    for spec in specs:
        tiny.prepare(store, spec)
    stack.train_stack(store, specs, lambda spec: lambda saved: None, lambda line: None)
    for spec in specs:
        tiny.prepare(alone, spec)
        training.train(alone, spec)
        assert tiny.checkpoint_hashes(alone, spec.run) == tiny.checkpoint_hashes(store, spec.run)
    run = OpenRun(store, specs[0])
    assert ledger.compute_ledger(run, run.planned) > 0


def test_a_sweep_that_was_killed_continues_with_the_same_numbers(folder, monkeypatch):
    wanted = {
        "training": ON_GPU,
        "ledger": {},
        "influence": {"mechanisms": [COPY], "at": [24], "metasmoothness_steps": 0},
    }
    run, other = trained(Store(folder / "killed"), **wanted), trained(Store(folder / "whole"), **wanted)
    influence.compute_influence(other, [24])
    monkeypatch.setattr(sweep, "KEEP_EVERY_SECONDS", 0)
    real, calls = attribution_influence.reverse_update, []

    def killed(*arguments):
        calls.append(arguments)
        if len(calls) == 15:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(attribution_influence, "reverse_update", killed)
    with pytest.raises(KeyboardInterrupt):
        influence.compute_influence(run, [24])
    influence.compute_influence(run, [24])
    assert len(calls) < 15 + 24, "it went on where it was"
    rows = "select update_step, example_id, value from influence order by all"
    assert query(run.store.root, rows).rows() == query(other.store.root, rows).rows()


def test_one_process_of_torchrun_trains_on_the_gpu(folder, request):
    wanted = {"training": ON_GPU, "ledger": {}, "influence": {}}
    spec = tiny.spec_of(**wanted)
    store = Store(folder / "shared")
    tiny.prepare(store, spec)
    process = torchrun(folder, request.config.rootpath, "--standalone", "--nproc-per-node", "1")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert "24/24 updates" in output
    alone = trained(Store(folder / "alone"), **wanted)
    assert tiny.checkpoint_hashes(store, RUN) == tiny.checkpoint_hashes(alone.store, RUN)


def test_the_time_of_an_update_is_measured_on_the_gpu(folder):
    (measured,) = cost.costs((tiny.spec_of(training=ON_GPU),))
    assert measured.seconds is not None
