"""The stages that keep what others made in order: few files, and the report of an experiment."""

from collections.abc import Sequence

from mech_pipeline.pipeline import report
from mech_pipeline.pipeline.cells import Cell
from mech_pipeline.pipeline.stage import Cells, Output, Scope, Stage, Told, View, always
from mech_pipeline.store.care.maintain import compact_runs, crowded_tables

_DONE = (
    *("training", "analysis", "circuits", "neurons", "readouts", "example_losses", "signals", "ledger"),
    *("formation", "influence", "retraining", "movement", "discovery", "atoms"),
)


def _crowded(view: View) -> Cells:
    """Tables in which the run has many files; what is in them stays as it is."""
    return {Cell(name, view.spec.run): "crowded" for name in crowded_tables(view.store, view.spec.run)}


def _reported(view: View) -> Cells:
    return report.wanted(view.store, view.whole)


def _not_reported(view: View, wanted: Cells) -> list[Cell]:
    return report.pending(view.store, view.whole)


def _report(view: View, steps: Sequence[int], told: Told) -> int:
    report.make_report(view.store, view.whole)
    return 1


COMPACTION = Stage(
    "compaction",
    "Puts the rows of finished runs into few files.",
    Scope.RUN,
    (
        Output(
            "compaction",
            "A finished run's rows in one sorted file per table: queries read dozens of times fewer files. Some seconds.\n\n"
            "Rows stay as they are, so nothing becomes stale. Beside running writers it is safe: whoever commits first wins.",
            (),
            always("1"),
            inputs=("training_run",),
            group="store",
        ),
    ),
    wanted=_crowded,
    pending=lambda view, wanted: list(wanted),
    compute=lambda view, steps, told: len(compact_runs(view.store, [view.spec.run], emit=told.emit)),
    reads=("spec",),
    after=_DONE,
    priority=0,
)

REPORT = Stage(
    "report",
    "Renders the report of an experiment.",
    Scope.EXPERIMENT,
    (
        Output(
            "experiment_report",
            "One self-contained HTML page: curves of all seeds, ledger, influence, and what each number may be used for.",
            ("reports",),
            always(report.CODE_VERSION),
            inputs=(
                *("formation", "mechanism_values", "head_scores", "circuits", "neurons", "ledger", "influence"),
                *("reliability", "lds", "comparisons", "discoveries", "atoms"),
            ),
            group="experiments",
            kinds=("html",),
        ),
    ),
    wanted=_reported,
    pending=_not_reported,
    compute=_report,
    reads=("spec",),
    after=(*_DONE, "compaction", "comparison", "scoring"),
)
