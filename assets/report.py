"""Group `experiments`: the report."""

import base64

import dagster as dg

from mech_pipeline.assets.factory import described
from mech_pipeline.assets.spec import ExperimentFile
from mech_pipeline.pipeline import report as stage
from mech_pipeline.resources.store import ExperimentsResource, StoreResource


@dg.asset(**described("experiment_report"))
def experiment_report(
    context: dg.AssetExecutionContext, config: ExperimentFile, store: StoreResource, experiments: ExperimentsResource
) -> dg.MaterializeResult:
    """One self-contained HTML page: curves of all seeds, ledger, influence, and what each number may be used for."""
    experiment = experiments.load(config.file, context.partition_key)
    made = stage.make_report(store.open(), experiment)
    pictures = {_label(name): dg.MetadataValue.md(_inline(png)) for name, png in made.figures.items()}
    return dg.MaterializeResult(
        metadata={
            "report": dg.MetadataValue.path(made.path),
            "open it": f"mech report {experiment.experiment}",
            **pictures,
        },
        data_version=dg.DataVersion(made.data_version),
    )


def _label(name: str) -> str:
    """`ledger_over_steps.induction_copy_advantage.png` → `ledger over steps (induction_copy_advantage)`."""
    figure, *of = name.removesuffix(".png").split(".")
    return figure.replace("_", " ") + "".join(f" ({part})" for part in of)


def _inline(png: bytes) -> str:
    return f"![figure](data:image/png;base64,{base64.b64encode(png).decode()})"
