"""`mech status`: what of an experiment is not current."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as RichTable


def status(file: Annotated[Path, typer.Argument(help="experiment file")]) -> None:
    """Show what of an experiment is not current, without computing anything."""
    from mech_pipeline.mechanisms.registry import MECHANISMS
    from mech_pipeline.pipeline.plan import ready_stages
    from mech_pipeline.project import find_project
    from mech_pipeline.resolve import corpus_hashes, read_experiment
    from mech_pipeline.store.store import Store

    project = find_project()
    MECHANISMS.use(project.mechanisms)
    runs = read_experiment(file.absolute(), project.home).runs()
    store, corpora = Store(project.store), corpus_hashes(runs)
    table = RichTable("run", "ready and not current (cells)")
    for spec in runs:
        stages = ready_stages(store, spec, corpora[spec.run])
        table.add_row(spec.run, ", ".join(f"{stage} ({count})" for stage, count in stages.items()) or "current")
    Console().print(table)
