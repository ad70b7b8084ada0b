"""The report's section on what was trained, on what and where, with the whole description folded, and how to cite."""

from dataclasses import dataclass

import yaml

from mech_pipeline import __version__
from mech_pipeline.frames import frame
from mech_pipeline.reports.costs import machines, period, stage_rows, trained_before
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study
from mech_pipeline.reports.wording import number
from mech_pipeline.spec.run import RunSpec


@dataclass(frozen=True)
class SetupRow:
    """One arm in words."""

    arm: str
    seeds: str
    model: str
    optimizer: str
    training: str
    corpus: str
    machine: str


def setup(study: Study) -> Section:
    """A row per arm, from the first run of each, and the experiment's own description."""
    arms: dict[str, list[RunSpec]] = {}
    for spec in study.specs:
        arms.setdefault(spec.arm, []).append(spec)
    description = study.experiment.model_dump(mode="json", exclude_defaults=True)
    context = {
        "rows": [_row(study, specs) for specs in arms.values()],
        "costs": stage_rows(study),
        "trained_before": trained_before(study),
        "period": period(study),
        "yaml": yaml.safe_dump(description, sort_keys=False, allow_unicode=True, width=100),
        "cite": f"The mech_pipeline authors. mech_pipeline {__version__} (software). Report of experiment "
        f"{study.experiment.experiment}, runs {', '.join(_fingerprints(study)) or 'not computed yet'}, computed: {period(study)}.",
    }
    return Section("setup", "Setup", "setup.html", context)


def _row(study: Study, specs: list[RunSpec]) -> SetupRow:
    spec = specs[0]
    model, data, training, optimizer = spec.model, spec.data, spec.training, spec.optimizer
    parameters = study.parameters(spec.run)
    size = "" if parameters is None else f", {parameters:,} parameters"
    mlp = (
        "attention only"
        if model.d_mlp is None and model.family == "native"
        else f"MLP {model.d_mlp or 4 * model.d_model}"
    )
    tokens = training.steps * training.batch * data.context
    return SetupRow(
        spec.arm,
        ", ".join(str(each.seed) for each in specs),
        f"{model.family}, {model.layers} layers × {model.heads} heads, width {model.d_model}, {mlp}{size}",
        f"{optimizer.kind}, learning rate {optimizer.learning_rate:g} ({optimizer.schedule})",
        f"{training.steps:,} updates × {training.batch} examples × {data.context} tokens = {number(tokens / 1e6)} million "
        f"tokens; {data.examples:,} distinct examples",
        _corpus(spec),
        machines(study, [each.run for each in specs]),
    )


def _corpus(spec: RunSpec) -> str:
    """The corpus as the file names it."""
    described = spec.corpus.model_dump(mode="json", exclude_defaults=True)
    return "; ".join(name if value is True else f"{name} {value}" for name, value in described.items())


def _fingerprints(study: Study) -> list[str]:
    found = frame(
        study.connection,
        "select fingerprint from runs where run = any($runs::varchar[]) order by list_position($runs::varchar[], run)",
        runs=study.runs,
    )
    return [text[:12] for text in found["fingerprint"]]
