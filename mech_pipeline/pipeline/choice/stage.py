"""The stage `choice`: which examples a run of a choosing arm treats otherwise."""

from collections.abc import Sequence
from functools import partial

from mech_pipeline.pipeline.choice import wanted
from mech_pipeline.pipeline.stage import Output, Read, Scope, Stage, Told, View, always
from mech_pipeline.spec.run import RunSpec


def _choose(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.choice.choice import compute_choice

    return compute_choice(view, told.emit)


def _reads(by: str | None, spec: RunSpec) -> list[str]:
    """The runs whose account a run chooses by."""
    parts = spec.choice.parts() if spec.choice is not None else ()
    return sorted({run for part in parts if by in (None, part.by) for run in part.runs})


CHOICE = Stage(
    "choice",
    "Chooses the examples that an arm treats otherwise, by what was measured of other runs.",
    Scope.RUN,
    (
        Output(
            "choices",
            "The examples that the run leaves out, shows twice or delays, and by what they were chosen. Seconds.",
            ("choices", "choice_balance"),
            always(wanted.CODE_VERSION),
            inputs=("run_spec", "tokens"),
            group="causes",
            rows="select rank, example_id, weight, score, first_update, last_update, stands_for from choices "
            "where run = $run order by rank, first_update",
        ),
    ),
    asked=lambda spec: spec.choice is not None,
    refuses=wanted.refused,
    wanted=wanted.wanted,
    compute=_choose,
    reads=(
        "spec",
        Read("formation", of=partial(_reads, None)),
        Read("influence", of=partial(_reads, "influence")),
        Read("ledger", of=partial(_reads, "ledger")),
    ),
    priority=80,
)
