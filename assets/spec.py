"""Group `spec`: what is to be trained, and on which tokens."""

import dagster as dg

from mech_pipeline.assets.events import emitter, stored_in
from mech_pipeline.assets.factory import described
from mech_pipeline.assets.previews import query_of, rows_of_run
from mech_pipeline.pipeline.cells import combined_version, stored_versions
from mech_pipeline.pipeline.run_row import describe_run
from mech_pipeline.pipeline.stage_costs import measured
from mech_pipeline.pipeline.tokens.probe_data import check_probe_data
from mech_pipeline.pipeline.tokens.probe_rows import write_probe_sequences
from mech_pipeline.pipeline.tokens.tokens import load_tokens, prepare_tokens
from mech_pipeline.resources.store import ExperimentsResource, StoreResource, documents_of


class ExperimentFile(dg.Config):
    """Where the experiment is described; by default the file in `experiments/` that carries its name."""

    file: str | None = None


READS_FILE = ("run_spec", "experiment_plan", "experiment_report")
"""Assets whose config may name the file of the experiment."""


@dg.asset(**described("run_spec"))
def run_spec(
    context: dg.AssetExecutionContext, config: ExperimentFile, store: StoreResource, experiments: ExperimentsResource
) -> dg.MaterializeResult:
    """The run's resolved description and identity: one row. A second."""
    spec = experiments.run_spec(config.file, context.partition_key)
    opened = store.open()
    _, sha256 = documents_of(spec)
    version = describe_run(opened, spec, sha256)
    return dg.MaterializeResult(
        metadata={
            "fingerprint": version,
            "arm": spec.arm,
            "seed": spec.seed,
            "checkpoints": len(spec.checkpoint_steps()),
            **stored_in(opened, "runs"),
            **query_of("run_spec", spec.run),
        },
        data_version=dg.DataVersion(version),
    )


@dg.asset(**described("tokens"))
def tokens(context: dg.AssetExecutionContext, store: StoreResource) -> dg.MaterializeResult:
    """Tokenizer, token shard, examples and probe, content-addressed. About ten seconds for 12 MB, shared by runs."""
    spec, opened = store.run_spec(context.partition_key), store.open()
    documents, _ = documents_of(spec)
    with measured(opened, "spec", [spec]) as work:
        made = work.cells[spec.run] = prepare_tokens(opened, spec, documents, emitter(context))
        probe = load_tokens(opened, spec).probe
        check_probe_data(spec, probe)
        write_probe_sequences(opened, spec, probe)
    stored = stored_versions(opened, "tokens", spec.run)
    return dg.MaterializeResult(
        metadata={
            "artifacts made": made,
            "documents": len(documents),
            **stored_in(opened, "tokens"),
            **rows_of_run(opened, "tokens", spec.run),
        },
        data_version=dg.DataVersion(combined_version(stored.values())),
    )
