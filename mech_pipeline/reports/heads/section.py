"""The report's section on attention heads: their scores over training, and which heads are of a class since when."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from mech_pipeline.mechanisms.detectors.head_classes import IOI_CLASSES, members
from mech_pipeline.mechanisms.registry import DETECTORS
from mech_pipeline.reports.heads import queries
from mech_pipeline.reports.heads.figures import head_atlas, head_scores_over_steps
from mech_pipeline.reports.section import Section
from mech_pipeline.reports.subject import Study
from mech_pipeline.spec.experiment import Experiment


@dataclass(frozen=True)
class ClassRow:
    """One class of heads: what its heads do, and a cell for each run."""

    name: str
    does: str
    cells: list[str]


def heads(study: Study) -> Section:
    """Scores of all heads of the first run that has any; classes of heads of every run."""
    run, drawn = _draw(study)
    runs, rows = head_classes(study)
    context = {
        "run": run,
        "nothing": no_heads(study.experiment),
        "detectors": {name: DETECTORS[name] for name in study.experiment.detectors},
        "class_runs": runs,
        "classes": rows,
    }
    return Section("heads", "Attention heads", "heads/section.html", context, drawn, empty=not drawn)


def no_heads(experiment: Experiment) -> str:
    """Why there is nothing to show."""
    if experiment.detectors:
        return "No head scores have been computed."
    return "This experiment asks for no head scores (its field `detectors`)."


def head_classes(study: Study) -> tuple[Sequence[str], list[ClassRow]]:
    """The runs with head scores, and a row for each class that the detectors can tell; no rows without runs."""
    asked = [each for each in IOI_CLASSES if each.detectors <= set(study.experiment.detectors)]
    if not asked:
        return [], []
    scores = {run: queries.head_scores(study.connection, run) for run in study.runs}
    found = {
        run: list(frame.select("step", "layer", "head", "detector", "value").iter_rows())
        for run, frame in scores.items()
        if frame.height
    }
    rows = [
        ClassRow(each.name, each.does, [_cell(members(each, scores)) for scores in found.values()]) for each in asked
    ]
    return list(found), rows if found else []


def _draw(study: Study) -> tuple[str | None, dict[str, Figure]]:
    """The figures of the first run that has head scores, and that run."""
    for run in study.runs:
        scores = queries.head_scores(study.connection, run)
        units = {name: DETECTORS[name].unit for name in study.experiment.detectors if name in scores["detector"]}
        if units:
            return run, {
                "head_scores_over_steps.png": head_scores_over_steps(scores, run, units),
                "head_atlas.png": head_atlas(scores, run, units),
            }
    return None, {}


def _cell(since: dict[tuple[int, int], int]) -> str:
    return ", ".join(f"L{layer}H{head} since {step:,}" for (layer, head), step in since.items()) or "absent"
