"""`mech audit`: whether the states of a run were made from one another with the batches that are said."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mech_pipeline.commands import completing
from mech_pipeline.commands.output import say
from mech_pipeline.commands.progress import progress_lines
from mech_pipeline.errors import MechError

if TYPE_CHECKING:
    from mech_pipeline.exchange.audit import Audited
    from mech_pipeline.pipeline.run import OpenRun

_NAMED = 5  # wrong updates that are named one by one


def audit(
    run: Annotated[
        str, typer.Argument(help="run id, for example induction.baseline.s0", autocompletion=completing.runs)
    ],
    steps: Annotated[
        str, typer.Option(help="FROM:TO, widened to the kept states around them; default: the whole run")
    ] = "",
    order: Annotated[
        Path | None,
        typer.Option(help="a .parquet or .csv with update_step, position, example_id; default: the table batches"),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="write a row per update to this .csv, .json or .parquet")] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="largest residual of an update that counts as right; default: 1e-5", min=0)
    ] = None,
) -> None:
    """Check that each state of a run was made from the one before with the batch that is said.

    Replays every update and compares: the residual is the distance between predicted and kept movement of the weights,
    in units of the movement: about rounding for the right batch, about 1 for a wrong one. Exit code 1 if any is wrong.
    """
    from mech_pipeline.commands.opening import opened_run
    from mech_pipeline.exchange.audit import TOLERANCE
    from mech_pipeline.exchange.audit import audit as judge
    from mech_pipeline.exchange.claim import read_claim, stored_claim
    from mech_pipeline.progress import Progress

    opened = opened_run(run)
    first, last = _window(opened, steps)
    claim = stored_claim(opened) if order is None else read_claim(opened, order)
    with progress_lines() as emit:
        found = list(judge(opened, claim, first, last, Progress(emit, f"audit {run}", last - first, "updates")))
    if output is not None:
        _save(found, output)
    _tell(run, found, TOLERANCE if tolerance is None else tolerance)


def _window(run: "OpenRun", text: str) -> tuple[int, int]:
    """The kept states around what is asked for.

    Raises:
        MechError: there are none.
    """
    kept = sorted(run.checkpoints)
    if len(kept) < 2:
        raise MechError(f"run {run.spec.run} has {len(kept)} checkpoints; two are needed", "`mech run` its experiment")
    if not text:
        return kept[0], kept[-1]
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise MechError(f"steps {text!r} are not FROM:TO", f"name two steps, for example {kept[0]}:{kept[1]}")
    before = [step for step in kept if step <= int(first)]
    after = [step for step in kept if step >= int(last)]
    if not before or not after:
        raise MechError(f"run {run.spec.run} keeps steps {kept[0]} to {kept[-1]}, not {text}", "name steps within them")
    return before[-1], after[0]


def _save(found: "list[Audited]", path: Path) -> None:
    """A row per update, as the file's name ends."""
    import polars as pl

    from mech_pipeline.store.reading.formats import as_bytes, save

    frame = pl.DataFrame([asdict(each) for each in found])
    ending = path.suffix.removeprefix(".").lower()
    if ending == "json":
        frame = pl.DataFrame({"row": [json.dumps(row) for row in frame.iter_rows(named=True)]})
    save(path, as_bytes(frame, ending if ending in ("json", "parquet") else "csv"))


def _which(each: "Audited") -> str:
    if each.last_step - each.first_step == 1:
        return f"update {each.first_step}"
    return f"updates {each.first_step} to {each.last_step - 1}"


def _tell(run: str, found: "list[Audited]", tolerance: float) -> None:
    """What was found, in words.

    Raises:
        MechError: an update was made with another batch.
    """
    wrong = [each for each in found if each.residual > tolerance]
    for each in wrong[:_NAMED]:
        judged = f"judged by the {each.judged_by}, {each.evidence} states"
        say(f"{_which(each)}: residual {each.residual:.2g}, not made with that batch ({judged})")
    if len(wrong) > _NAMED:
        say(f"and {len(wrong) - _NAMED} more")
    updates = sum(each.last_step - each.first_step for each in found)
    single = sum(each.last_step - each.first_step == 1 for each in found)
    largest = max((each.residual for each in found if each.residual <= tolerance), default=0.0)
    stretches = f", the others in {len(found) - single} stretches" if single < len(found) else ""
    say(
        f"{run}: {updates} updates, {single} judged one by one{stretches}; largest residual of a right one {largest:.2g}"
    )
    if wrong:
        raise MechError(
            f"{len(wrong)} of {len(found)} judgements find another batch than the one that is said",
            "compare the order with the table `batches`; `--output FILE` keeps every residual",
        )
    say("every state was made from the one before with the batches that are said")
