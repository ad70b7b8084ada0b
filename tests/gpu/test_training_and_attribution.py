"""Training and attribution on a GPU: bits that repeat, and what the tests of each subject prove on the CPU.

MECH_TEST_DEVICE=cpu runs the same bodies where there is no GPU.
"""

import dataclasses
import gc
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import multiprocessing

from mech_pipeline.spec.run_checks import VECTOR_WIDTH
from mech_pipeline.spec.training import Training
from mech_pipeline.training.checkpoints import pack_state, state_sha256, unpack_state
from mech_pipeline.training.device import computing
from mech_pipeline.training.many.stack import StackedGradient, Together
from mech_pipeline.training.update.optimizer import State
from tests.support import on_every_device, own_loops
from tests.support.gpu import DEVICE, KIND, NEEDS_GPU
from tests.support.influence import sweep, train
from tests.support.models import ARCHITECTURES, CPU, OPTIMIZERS, trainer_of
from tests.support.neurons import account_of
from tests.support.per_example import PRECISIONS
from tests.support.ranks import compare_shards_with_one_process

pytestmark = NEEDS_GPU
UPDATES = 12
make_trainer = partial(trainer_of, device=DEVICE)
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


@pytest.fixture(autouse=True)
def as_the_pipeline_computes():
    with computing(Training(device=KIND)):
        yield


def trained_on(device, architecture, dtype=torch.float32, **change):
    """A trainer and its states after each update."""
    trainer = trainer_of(ARCHITECTURES[architecture], dtype=dtype, device=device)
    trainer = dataclasses.replace(trainer, training=Training(**trainer.training.model_dump() | change))
    return trainer, list(trainer.updates(State.initial(trainer.flat.vector), UPDATES))


@every_architecture
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"micro_batches": 2},
        {"precision": "bf16"},
        {"attention": "fused"},
        {"precision": "bf16", "attention": "fused"},
        {"stacked": True},
    ],
    ids=str,
)
def test_training_repeats_itself_and_resumes_bit_for_bit(architecture, change):
    trainer, whole = trained_on(DEVICE, architecture, **change)
    again, repeated = trained_on(DEVICE, architecture, **change)
    for one, other in zip(whole, repeated, strict=True):
        assert state_sha256(one.after) == state_sha256(other.after), f"update {one.before.step}"
    kept = unpack_state(pack_state(whole[4].after, trainer.flat), 5, again.flat, "the checkpoint")
    assert kept.theta.device.type == DEVICE.type
    resumed = list(again.updates(kept, UPDATES))[-1].after
    assert state_sha256(resumed) == state_sha256(whole[-1].after)


@every_architecture
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_losses_are_those_of_the_cpu_to_rounding(architecture, dtype, tolerance):
    """A sum's rounding, 1e-16 or 1e-7, grows a hundredfold over twelve updates of this size."""
    _, here = trained_on(DEVICE, architecture, dtype)
    _, there = trained_on(CPU, architecture, dtype)
    assert [made.loss for made in here] == pytest.approx([made.loss for made in there], rel=tolerance)


@every_architecture
def test_bf16_is_close_to_fp32_on_a_gpu_too(architecture):
    _, exact = trained_on(DEVICE, architecture)
    _, rough = trained_on(DEVICE, architecture, precision="bf16")
    assert rough[0].after.theta.dtype == torch.float32
    assert (exact[0].gradient - rough[0].gradient).norm() < 0.05 * exact[0].gradient.norm()
    assert rough[-1].loss == pytest.approx(exact[-1].loss, rel=0.02)


@every_architecture
def test_seeds_of_a_stack_have_the_bits_of_a_run_alone(architecture):
    model = ARCHITECTURES[architecture]
    model = model.model_copy(update={"d_mlp": None if model.d_mlp is None else VECTOR_WIDTH})

    def end_of(seed, together):
        trainer = trainer_of(model, dtype=torch.float32, seed=seed, device=DEVICE)
        training = trainer.training.model_copy(update={"stacked": True})
        trainer = dataclasses.replace(trainer, training=training, together=together)
        try:
            return list(trainer.updates(State.initial(trainer.flat.vector), 6))[-1].after
        finally:
            together.leave()

    shared = Together(3, 1, 1)
    with ThreadPoolExecutor(3) as pool:
        ends = list(pool.map(lambda seed: end_of(seed, shared), range(3)))
    for seed, end in enumerate(ends):
        assert state_sha256(end) == state_sha256(end_of(seed, Together(1, 1, 1)))


@every_architecture
def test_a_stack_gives_each_run_the_gradient_it_has_alone(architecture):
    on_every_device.a_stack_gives_each_run_the_gradient_it_has_alone(make_trainer, architecture)


@pytest.mark.skipif(KIND == "cpu", reason="CUDA graphs need a GPU")
@every_architecture
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_recorded_stack_has_the_bits_of_the_unrecorded_beside_threads_and_garbage(architecture, dtype):
    trainer = trainer_of(ARCHITECTURES[architecture], dtype=dtype, device=DEVICE)
    tokens, weights = trainer.tokens(torch.arange(4)).expand(8, -1, -1), torch.ones(8, 4, dtype=dtype, device=DEVICE)
    thetas = trainer.flat.vector + torch.linspace(0, 0.1, 8, device=DEVICE, dtype=dtype)[:, None]
    thetas = torch.nn.functional.pad(thetas, (0, -thetas.shape[1] % 4))
    expected = StackedGradient(trainer.flat)._compute(thetas, tokens, weights)

    def recorded(place):
        stack = StackedGradient(trainer.flat)
        stack.itself = stack  # garbage that only the collector frees
        rows = torch.arange(8, device=DEVICE).roll(place)
        found = [stack._recorded(thetas[rows], tokens, weights) for _ in range(2)]
        return [[part[rows.argsort()] for part in each] for each in found]

    thresholds = gc.get_threshold()
    gc.set_threshold(1)  # whenever it may
    try:
        with ThreadPoolExecutor(4) as pool:
            for found in [each for twice in pool.map(recorded, range(12)) for each in twice]:
                assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    finally:
        gc.set_threshold(*thresholds)


@every_architecture
@every_optimizer
def test_every_window_and_the_run_balance(tiny_probe, architecture, optimizer):
    on_every_device.every_window_and_the_run_balance(make_trainer, tiny_probe, architecture, optimizer)


@every_architecture
def test_influence_equals_finite_differences_of_retraining(tiny_probe, architecture):
    on_every_device.influence_equals_finite_differences_of_retraining(
        make_trainer, tiny_probe, architecture, "adamw, clip and decay", "induction_copy_advantage"
    )


@every_architecture
def test_influence_of_one_tokens_loss_equals_finite_differences_of_retraining(tiny_probe, architecture):
    on_every_device.influence_of_one_tokens_loss_equals_finite_differences_of_retraining(
        make_trainer, tiny_probe, architecture
    )


@every_architecture
def test_influence_is_that_of_the_cpu(tiny_probe, architecture):
    here, there = (maker(ARCHITECTURES[architecture]) for maker in (make_trainer, trainer_of))
    found, expected = (sweep(t, train(t), tiny_probe, "induction_copy_advantage") for t in (here, there))
    scale = max(map(abs, expected.values()))
    assert found == pytest.approx(expected, abs=1e-8 * scale)


def test_a_resumed_sweep_gives_the_same_numbers_and_its_parts_sum_to_the_example(tiny_probe):
    on_every_device.a_resumed_sweep_gives_the_same_numbers(make_trainer, tiny_probe)
    on_every_device.tokens_and_components_sum_to_the_example(make_trainer, tiny_probe)


@every_architecture
@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("count", [1, 3])
def test_contraction_equals_one_backward_per_example(architecture, dtype, tolerance, count):
    on_every_device.contraction_equals_one_backward_per_example(make_trainer, architecture, dtype, tolerance, count)


@every_architecture
def test_in_training_scores_equal_one_backward_per_example(architecture):
    on_every_device.scores_of_every_update_equal_one_backward_per_example(make_trainer, architecture, 2, 3)


@every_architecture
def test_a_stack_of_removals_is_plain_training_with_weights_0(architecture):
    on_every_device.a_stack_of_removals_is_plain_training_with_weights_0(
        make_trainer, architecture, "adamw, clip and decay"
    )


def test_metasmoothness_of_a_short_gentle_training_is_near_one():
    on_every_device.metasmoothness_is_near_one_for_a_short_gentle_training(make_trainer)


def test_what_made_neurons_is_what_it_is_on_the_cpu():
    here, there = (account_of(maker(ARCHITECTURES["mlp and layer norm"]))[2] for maker in (make_trainer, trainer_of))
    assert torch.allclose(here.displacement, there.displacement, rtol=1e-9)
    assert torch.allclose(here.tokens, there.tokens, atol=1e-10)
    assert here.imbalance().abs().max() < 1e-6


def test_a_record_of_a_loop_of_ones_own_may_be_on_a_gpu():
    found, expected = [], []
    for into, device in ((found, DEVICE), (expected, CPU)):
        torch.manual_seed(3)
        record = own_loops.train(own_loops.gpt2().double().to(device), own_loops.OPTIMIZERS["adamw"])
        into += [record.influence(own_loops.readout, 12, tokens=True).scores, record.ledger(own_loops.readout, 12)]
    for frame, other in zip(found, expected, strict=True):
        assert frame.drop("value", "value_later", strict=False).equals(other.drop("value", "value_later", strict=False))
        assert frame["value"].to_list() == pytest.approx(other["value"].to_list(), rel=1e-6, abs=1e-12)


def test_shards_over_nccl_have_the_bits_of_one_process(tmp_path):
    """One process takes all the collectives' ways; several need as many GPUs."""
    multiprocessing.spawn(compare_shards_with_one_process, (str(tmp_path), 1, DEVICE), nprocs=1)
