"""What Dagster costs beside the work: `python benchmarks/dagster_events.py [PART …]`, a few minutes; see benchmarks/README.md.

One Dagster run over a range of partitions whose body computes nothing: it reads the newest version of every input and
reports every partition, with the code that the assets use. All of its time is overhead.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

import dagster as dg
import typer
import yaml
from reporting import report
from store_measure import Result, Say

sys.path.append(str(Path(__file__).parents[1]))  # the Postgres server of the tests
from mech_pipeline.assets.events import PartitionEvents
from mech_pipeline.assets.history import spare_flushes
from mech_pipeline.assets.partitions import BATCH, partition, run_step, runs
from mech_pipeline.assets.registering import register_steps
from tests.support.postgres_server import postgres_programs, postgres_server

PARTS = ("sqlite", "postgres")
RUN = "benchmark.baseline.s0"
ONE_BY_ONE = {"DAGSTER_EVENT_BATCH_SIZE": "0", "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": ""}
ONE_PLANNED = ONE_BY_ONE | {"DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "1"}
SERVER = ONE_PLANNED | {"DAGSTER_EVENT_BATCH_SIZE": "1000"}  # what docker-compose.yml sets
METADATA = {"step": 0, "value": 0.5, "dagster/uri": "s3://bucket/store/tables/" + "x" * 40}


@dg.asset(partitions_def=run_step, output_required=False)
def source() -> Iterator[dg.MaterializeResult]:
    """What a checkpoint is to its analysis."""
    return
    yield


@dg.asset(partitions_def=run_step, deps=[source], output_required=False, backfill_policy=BATCH)
def reported(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
    """Every partition of the range, as if one commit of the store had published all of them."""
    keys = context.partition_keys
    events = PartitionEvents(context, "reported", "1", {"source": lambda key: key}, keys)
    with events.together():
        for key in keys:
            events.report(key, f"version of {key}", METADATA)
    return
    yield


JOB = dg.Definitions([source, reported], executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()


def prepare(instance: dg.DagsterInstance, partitions: int) -> None:
    """Partitions, and an input for each."""
    instance.add_dynamic_partitions(runs.name, [RUN])
    register_steps(instance, range(partitions))
    for step in range(partitions):
        instance.report_runless_asset_event(dg.AssetMaterialization("source", partition=partition(RUN, step)))


def overhead(instance: dg.DagsterInstance, partitions: int, turns: int, settings: dict[str, str]) -> float:
    """Median seconds of one run over all partitions; the first turn warms up."""
    tags = {
        "dagster/asset_partition_range_start": partition(RUN, 0),
        "dagster/asset_partition_range_end": partition(RUN, partitions - 1),
    }
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    seconds = []
    with environment(settings):
        for _ in range(turns + 1):
            began = time.perf_counter()
            JOB.execute_in_process(
                asset_selection=[dg.AssetKey("reported")], tags=tags, instance=instance, run_config=quiet
            )
            seconds.append(time.perf_counter() - began)
            done = len(instance.get_materialized_partitions(dg.AssetKey("reported")))
            assert done == partitions, f"{done} of {partitions} partitions are reported"
    return median(seconds[1:])


@contextmanager
def environment(settings: dict[str, str]) -> Iterator[None]:
    """The settings for as long as the block lasts; an empty one is unset."""
    before = dict(os.environ)
    os.environ.update(settings)
    for name in [name for name, value in settings.items() if not value]:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def instance_of(part: str, at: Path) -> Iterator[dg.DagsterInstance]:
    """An empty instance with its history where the part says."""
    with ExitStack() as stack:
        settings: dict[str, object] = {"telemetry": {"enabled": False}}
        if part == "postgres":
            programs = postgres_programs()
            assert programs is not None, "the part postgres was asked for on a machine that has none"
            url = stack.enter_context(postgres_server(programs)).url
            settings["storage"] = {"postgres": {"postgres_url": url}}
        (at / "dagster.yaml").write_text(yaml.safe_dump(settings))
        yield stack.enter_context(dg.DagsterInstance.from_config(str(at)))


def measure(part: str, at: Path, partitions: int, turns: int, say: Say) -> list[Result]:
    """The overhead as the part's profile has it, beside events that are written one by one."""
    if part == "postgres" and postgres_programs() is None:
        return [
            Result(part, "not measured: no Postgres on this machine (apt-get install postgresql)", float("nan"), "s")
        ]
    with instance_of(part, at) as instance:
        prepare(instance, partitions)
        found = {}
        for name, settings in {"one by one": ONE_BY_ONE, "one planned": ONE_PLANNED, "server": SERVER}.items():
            if part == "postgres" or name != "server":
                found[name] = overhead(instance, partitions, turns, settings)
                say(f"{part}, {name}: {found[name]:.2f} s")
    what = f"overhead of a batch of {partitions} partitions"
    plain, planned = found["one by one"], found["one planned"]
    results = [
        Result(part, f"{what}, every event by itself", plain, "s", 15.0 if part == "sqlite" else None),
        Result(part, f"{what}, one planned event a run", planned, "s", None, planned / plain, "every event by itself"),
    ]
    if part == "postgres":
        server = found["server"]
        name = f"{what}, and reports together (docker-compose.yml)"
        results.append(Result(part, name, server, "s", 2.0, server / plain, "every event by itself"))
    return results


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"any of {', '.join(PARTS)}; all by default")] = None,
    partitions: Annotated[int, typer.Option(help="partitions of the batch")] = 200,
    turns: Annotated[int, typer.Option(help="timed runs of each; the median counts")] = 3,
    folder: Annotated[Path | None, typer.Option(help="where to work")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the results here")] = None,
) -> None:
    """Measures Dagster's overhead on this machine, on SQLite and on Postgres."""
    spare_flushes()  # as the definitions do
    report(
        "Dagster",
        PARTS,
        {part: lambda at, say, part=part: measure(part, at, partitions, turns, say) for part in PARTS},
        parts,
        folder,
        json_file,
    )


if __name__ == "__main__":
    typer.run(main)
