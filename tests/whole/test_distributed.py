"""Several processes train one run: the same bits as one process, on one or two addresses, killed or not."""

import os
import signal
import socket
import threading
import time

import dagster as dg
import pytest

from mech_pipeline.assets.launcher.execute import Executor
from mech_pipeline.assets.partitions import partition
from mech_pipeline.assets.registering import register
from mech_pipeline.definitions import build_definitions
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.training import training
from mech_pipeline.spec.experiment import load_experiment
from mech_pipeline.store.store import Store
from tests.support.ranks import RUN, linux, rank_pid, torchrun
from tests.support.tiny import checkpoint_hashes, prepare, spec_of, write_project

LONG = {"training": {"steps": 500, "batch": 8, "processes": 2}, "checkpoints": {"every": 100}}


def alone(folder, spec):
    """The hashes of the same run, trained by one process."""
    store = Store(folder / "alone")
    prepare(store, spec)
    training.train(store, spec)
    return checkpoint_hashes(store, RUN)


@linux
def test_two_addresses_train_the_same_bits_as_one_process(folder, request):
    spec = spec_of(training={"steps": 24, "batch": 8, "micro_batches": 4})
    store = Store(folder / "shared")
    prepare(store, spec)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rendezvous = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint"]
    rendezvous += [f"127.0.0.1:{port}", "--rdzv-id", "test"]
    nodes = [
        torchrun(folder, request.config.rootpath, *rendezvous, "--local-addr", address)
        for address in ("127.0.0.1", "127.0.0.2")
    ]
    ended = [node.communicate(timeout=600) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], ended
    assert sum("24/24 updates" in output for output, _ in ended) == 1, "rank 0 alone speaks"
    assert checkpoint_hashes(store, RUN) == alone(folder, spec)


@linux
def test_a_killed_rank_ends_training_and_any_number_of_processes_continues(folder, request):
    spec = spec_of(training={"steps": 3000, "batch": 8, "processes": 2}, checkpoints={"every": 100})
    store = Store(folder / "shared")
    prepare(store, spec)
    process = torchrun(folder, request.config.rootpath, "--standalone", "--nproc-per-node", "2")
    while not (acknowledged := checkpoint_hashes(store, RUN)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.kill(rank_pid(process.pid, 1), signal.SIGKILL)
    process.communicate(timeout=300)
    assert process.returncode != 0
    kept = checkpoint_hashes(store, RUN)
    assert acknowledged.items() <= kept.items()
    assert len(kept) < len(spec.checkpoint_steps()), "it was killed in the middle"
    shorter = spec_of(training={"steps": max(kept) + 200, "batch": 8, "processes": 2}, checkpoints={"every": 100})
    assert training.train(store, shorter) > 0
    assert checkpoint_hashes(store, RUN) == alone(folder, shorter)


def test_a_number_of_processes_that_does_not_fit_is_named(folder, request):
    spec = spec_of(training={"steps": 24, "batch": 8})
    prepare(Store(folder / "shared"), spec)
    process = torchrun(folder, request.config.rootpath, "--standalone", "--nproc-per-node", "2")
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "mech: 2 processes cannot share the 1 micro-batches of run tiny.baseline.s0" in errors


@pytest.fixture
def graph(folder, request):
    """A run of two processes, known to Dagster; the parameter changes its spec."""
    change = {"training": {"steps": 24, "batch": 8, "processes": 2}} | getattr(request, "param", {})
    file = write_project(folder, **change)
    definitions = build_definitions(str(folder / "shared"), folder / "experiments")
    (folder / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(folder / "dagster")) as instance:
        register(instance, load_experiment(file).runs())
        executor = Executor(definitions, instance, launcher_pid=1)
        for asset in ("run_spec", "tokens"):
            executor.run_assets([asset], RUN)
        yield instance, executor, load_experiment(file).runs()[0]


def test_the_asset_trains_through_pipes_and_reports_every_checkpoint(graph, folder):
    instance, executor, spec = graph
    executor.run_assets(["training_run"], RUN)
    done = instance.get_materialized_partitions(dg.AssetKey("checkpoint"))
    assert done == {str(partition(RUN, step)) for step in spec.checkpoint_steps()}
    assert checkpoint_hashes(Store(folder / "shared"), RUN) == alone(folder, spec)


@linux
@pytest.mark.parametrize("graph", [LONG], indirect=True)
def test_the_asset_goes_on_by_itself_when_a_process_is_killed(graph, folder):
    _, executor, spec = graph
    store, killed = Store(folder / "shared"), []

    def kill_the_second():
        while not checkpoint_hashes(store, RUN):
            time.sleep(0.1)
        killed.append(rank_pid(os.getpid(), 1))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_the_second)
    killer.start()
    executor.run_assets(["training_run"], RUN)
    killer.join()
    assert killed
    assert checkpoint_hashes(store, RUN) == alone(folder, spec)


def test_a_problem_of_the_processes_reaches_dagster_as_it_is(graph, folder):
    _, executor, _ = graph
    with Store(folder / "shared").lock(f"training-{RUN}", "hold it"), pytest.raises(MechError, match=RUN):
        executor.run_assets(["training_run"], RUN)
