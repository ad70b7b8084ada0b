"""What the stages of an experiment took, for the report's setup: from the table `stage_costs`, where it was measured."""

from dataclasses import dataclass

from mech_pipeline.frames import frame
from mech_pipeline.reports.subject import Study
from mech_pipeline.reports.wording import number

NOT_MEASURED = "not measured"
_LEAVES = {
    "spec": "tokens",
    "training": "checkpoints",
    "analysis": "mechanism_values",
    "circuits": "circuits",
    "neurons": "neurons",
    "signals": "signal_values",
    "ledger": "ledger_balance",
    "formation": "formation",
    "influence": "reliability",
    "retraining": "lds",
    "compaction": None,
}
"""Stages in their order, each with a small table in which it leaves rows: rows without a cost were made before costs were kept."""


@dataclass(frozen=True)
class CostRow:
    """One stage, over the experiment's runs."""

    stage: str
    runs: str
    wall: str
    cpu: str
    peak: str


def stage_rows(study: Study) -> list[CostRow]:
    """A row per stage that left anything. Recomputations are in the sums."""
    found = frame(
        study.connection,
        """select stage, count(distinct run) as runs, sum(wall_seconds) as wall, sum(cpu_seconds) as cpu,
            max(peak_bytes) as peak, max(peak_gpu_bytes) as gpu
        from stage_costs where run = any($runs::varchar[]) group by stage""",
        runs=study.runs,
    )
    costs = {row["stage"]: row for row in found.iter_rows(named=True)}
    told = {stage: _unmeasured(study, stage, table) for stage, table in _LEAVES.items()}
    rows = []
    for stage in dict.fromkeys([*_LEAVES, *costs]):
        cost, missing = costs.get(stage), told.get(stage, 0)
        if cost is None and missing:
            rows.append(CostRow(stage, f"{NOT_MEASURED} in {missing}", *[NOT_MEASURED] * 3))
        elif cost is not None:
            gpu = f"; GPU {_bytes(cost['gpu'])}" if cost["gpu"] is not None else ""
            more = f"; {NOT_MEASURED} in {missing}" if missing else ""
            times = f"{number(cost['wall'])} s", f"{number(cost['cpu'])} s"
            rows.append(CostRow(stage, f"{cost['runs']}{more}", *times, f"{_bytes(cost['peak'])}{gpu}"))
    return rows


def _unmeasured(study: Study, stage: str, table: str | None) -> int:
    """Runs in which the stage left rows, but not what they took."""
    if table is None:
        return 0
    found = frame(
        study.connection,
        f"""select count(distinct run) from {table} where run = any($runs::varchar[])
        and run not in (select run from stage_costs where stage = $stage)""",
        runs=study.runs,
        stage=stage,
    )
    return int(found.item())


def trained_before(study: Study) -> list[str]:
    """The runs that were trained before costs were kept: what other stages did then is in no sum either."""
    found = frame(
        study.connection,
        """select distinct run from checkpoints where run = any($runs::varchar[])
        and run not in (select run from stage_costs where stage = 'training') order by list_position($runs::varchar[], run)""",
        runs=study.runs,
    )
    return found["run"].to_list()


def period(study: Study) -> str:
    """The first and the last day on which a stage worked."""
    found = frame(
        study.connection,
        "select min(began)[:10] as first, max(began)[:10] as last from stage_costs where run = any($runs::varchar[])",
        runs=study.runs,
    ).row(0)
    days = list(dict.fromkeys(day for day in found if day is not None))
    return " to ".join(days) or NOT_MEASURED


def machines(study: Study, runs: list[str]) -> str:
    """What some runs were made on: the machine, where it was noted, and the device that decides their bits."""
    noted = frame(
        study.connection,
        "select distinct machine from stage_costs where run = any($runs::varchar[]) order by all",
        runs=runs,
    )
    devices = frame(
        study.connection, "select distinct device from runs where run = any($runs::varchar[]) order by all", runs=runs
    )
    if devices.is_empty():
        return "not trained yet"
    return "; ".join([*noted["machine"], *devices["device"]])


def _bytes(value: int) -> str:
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"
