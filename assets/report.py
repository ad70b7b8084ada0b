"""Group `experiments`: the report."""

import dagster as dg

from mech_pipeline.assets.factory import described
from mech_pipeline.assets.pictures import carried, curves_of, report_link
from mech_pipeline.assets.spec import ExperimentFile
from mech_pipeline.assets.standing import table_of
from mech_pipeline.pipeline import report as stage
from mech_pipeline.resources.store import ExperimentsResource, StoreResource


@dg.asset(**described("experiment_report"))
def experiment_report(
    context: dg.AssetExecutionContext, config: ExperimentFile, store: StoreResource, experiments: ExperimentsResource
) -> dg.MaterializeResult:
    """One self-contained HTML page: curves of all seeds, ledger, influence, and what each number may be used for."""
    experiment, opened = experiments.load(config.file, context.partition_key), store.open()
    made = stage.make_report(opened, experiment)
    return dg.MaterializeResult(
        metadata={
            "answer": made.answer,
            **report_link(experiment.experiment),
            **curves_of(experiment.experiment),
            **table_of(opened, experiment.runs()),
            "file": dg.MetadataValue.path(made.path),
            **{_label(name): carried(png) for name, png in made.figures.items()},
        },
        data_version=dg.DataVersion(made.data_version),
    )


def _label(name: str) -> str:
    """`ledger_over_steps.induction_copy_advantage.png` → `ledger over steps (induction_copy_advantage)`."""
    figure, *of = name.removesuffix(".png").split(".")
    return figure.replace("_", " ") + "".join(f" ({part})" for part in of)
