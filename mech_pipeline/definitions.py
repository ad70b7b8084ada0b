"""The composition root: assets, checks and resources put together. The only module here that imports dagster."""

import os
from pathlib import Path

from mech_pipeline.importing import without_looking_for_garbage

with without_looking_for_garbage():
    import dagster as dg

    from mech_pipeline.assets import (
        analysis,
        attribution,
        causes,
        formation,
        plan,
        report,
        signals,
        spec,
        training,
    )
    from mech_pipeline.assets import store as store_assets
    from mech_pipeline.assets.checks import checks
    from mech_pipeline.assets.description import described
    from mech_pipeline.assets.factory import made
    from mech_pipeline.assets.history import spare_flushes
    from mech_pipeline.assets.orchestration.jobs import STAGE_JOBS, check_run, plan_job
    from mech_pipeline.assets.orchestration.launching import launching_jobs
    from mech_pipeline.assets.orchestration.nightly import nightly
    from mech_pipeline.assets.orchestration.sensors import experiment_files, work
    from mech_pipeline.assets.serving.child import end_silently
    from mech_pipeline.mechanisms.chosen import CHOSEN
    from mech_pipeline.pipeline.stages import STAGES
    from mech_pipeline.project import Project, find_project
    from mech_pipeline.resources.store import ExperimentsResource, StoreResource

_HAND_MADE: tuple[dg.AssetsDefinition, ...] = (
    *(spec.run_spec, spec.tokens, training.training_run, training.checkpoint, training.zoom),
    *(analysis.checkpoint_analysis, analysis.circuits, attribution.ledger, attribution.neurons),
    *(attribution.influence_sweep, attribution.counterfactual_retraining, formation.formation),
    *(signals.signal_values, causes.choices, report.experiment_report, store_assets.compaction),
)
"""Assets with curves, checks or a body of their own; those of other stages are made from the table."""


def _of_stages() -> list[dg.AssetsDefinition]:
    """The assets of all stages."""
    there = {key.to_user_string() for asset in _HAND_MADE for key in asset.keys}
    return [*_HAND_MADE, *(made(stage) for stage in STAGES if not there & set(stage.assets))]


def build_definitions(store: str, experiments: Path, home: Path | None = None) -> dg.Definitions:
    """All definitions over one store and one folder of experiments.

    Args:
        home: folder that relative names in experiments begin at; default: the current one.
    """
    folder = str(home or Path.cwd())
    definitions = dg.Definitions(
        assets=[plan.experiment_plan, *_of_stages(), store_assets.warehouse],
        asset_checks=[*attribution.ledger_checks, attribution.influence_is_reliable, signals.no_alarm, *checks],
        jobs=[*launching_jobs(experiments), plan_job, check_run, *STAGE_JOBS.values()],
        sensors=[experiment_files, work],
        schedules=[nightly],
        resources={
            "store": StoreResource(root=store, home=folder),
            "experiments": ExperimentsResource(folder=str(experiments), home=folder),
            "io_manager": dg.mem_io_manager,  # assets hand over nothing; Dagster's default would pickle it
        },
        executor=dg.in_process_executor,
    )
    return described(definitions)


def _of(project: Project) -> dg.Definitions:
    """The definitions that Dagster's processes load."""
    CHOSEN.use(project.mechanisms)
    experiments = Path(os.environ.get("MECH_EXPERIMENTS", str(project.home / "experiments")))
    return build_definitions(project.store, experiments, project.home)


spare_flushes()
end_silently()
defs = _of(find_project())
