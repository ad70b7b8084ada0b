"""`mech verify`: whether every file of the store is whole, and how damage is mended."""

import time
from typing import Annotated

import typer

from mech_pipeline.commands.output import note, say
from mech_pipeline.errors import MechError


def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="take damaged files out, register again what is whole, name what is lost")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="existence and sizes only; finds no flipped bits")] = False,
) -> None:
    """Check every file of the store: size, SHA-256, rows against the tables' descriptions, index rows against blobs.

    Reads everything (about 0.5 GB/s). Exit code 1 if anything is damaged. Orphans (files that nothing names, left by
    killed writers) are counted and are no damage: `mech maintain` removes them.
    """
    from mech_pipeline.project import find_store
    from mech_pipeline.store.care.repair import repair_store
    from mech_pipeline.store.care.verify import verify_store
    from mech_pipeline.store.files.open import damaged_files

    files, began = damaged_files(find_store()), time.monotonic()
    found = verify_store(files, quick=quick, emit=note)
    for finding in found.damage:
        say(f"{finding.kind:<10} {finding.name}: {finding.problem}")
    if found.orphans:
        say(f"{len(found.orphans)} orphans, {sum(e.bytes for e in found.orphans) / 1e6:.1f} MB: no damage")
    took = f"{found.checked} files, {found.bytes / 1e6:.0f} MB, {time.monotonic() - began:.1f} s"
    if not found.damage:
        say(f"{'whole by size, contents not read' if quick else 'whole'}: {took}")
        return
    if not repair:
        raise MechError(f"{len(found.damage)} faults in {took}", "`mech verify --repair`")
    from mech_pipeline.pipeline.stages import makers  # only now: it loads all of the pipeline

    done = repair_store(files, found, note, makers())
    for line in done.lines:
        say(line)
    if done.lost:
        say("to be made again:")
        for lost in done.lost:
            say(f"  {lost}")
        say("`mech run` each experiment named, or materialize these partitions in the UI")
