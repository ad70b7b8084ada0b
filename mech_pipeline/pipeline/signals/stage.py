"""The stages `signals` (what every checkpoint says without naming a mechanism) and `scoring` (whether that announces an event)."""

from collections.abc import Sequence

from mech_pipeline.pipeline.needs import Need
from mech_pipeline.pipeline.signals import scores, wanted
from mech_pipeline.pipeline.stage import Output, Scope, Stage, Told, View, always


def _measure(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.signals.values import measure

    cells = wanted.wanted_values(view.opened, steps)
    late = [cell for cell in SIGNALS.waiting(view) if cell in cells]
    return measure(view.opened, cells, late, told.on_steps)


SIGNALS = Stage(
    "signals",
    "Measures signals that know no mechanism.",
    Scope.CHECKPOINT,
    (
        Output(
            "signal_values",
            "Every signal at a checkpoint: a row each, some 0.1 s for a small model.",
            ("signal_values",),
            always(wanted.CODE_VERSION),
            inputs=("checkpoint",),
            group="precursors",
            previewed=False,
            rows="select step, signal, value from signal_values where run = $run and step in $$ order by all",
        ),
    ),
    asked=lambda spec: bool(spec.signals),
    grid=lambda spec: spec.checkpoint_steps() if spec.signals else (),
    wanted=lambda view: wanted.wanted_values(view.found, view.found.planned),
    compute=_measure,
    reads=("training",),
    needs=frozenset({Need.WEIGHTS, Need.POOL}),
    live=True,
    priority=50,
    pool="gpu_analysis",
)


SCORING = Stage(
    "scoring",
    "Locks the alarms of signals on explored seeds, and evaluates them on the others.",
    Scope.EXPERIMENT,
    (
        Output(
            "signal_scores",
            "How well every signal announces the event on runs that nobody had looked at: rate of false alarms, coverage, lead, "
            "label. Locked on explored seeds first, once. Seconds.",
            ("signal_locks", "signal_scores", "signal_alarms"),
            always(scores.CODE_VERSION),
            inputs=("signal_values", "formation"),
            group="precursors",
            shows="signal_scores",
            rows="select signal, target, label, false_alarms, negatives, announced, events, lead_share_median from signal_scores "
            "where experiment = $run order by target, announced desc",
        ),
    ),
    asked=lambda spec: bool(spec.signals),
    refuses=scores.refused,
    wanted=scores.wanted,
    compute=lambda view, steps, told: scores.compute(view, told.emit),
    reads=("signals", "formation"),
    priority=5,
)
