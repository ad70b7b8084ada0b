"""`mech ls`: the experiments that there are, their runs, how far they are and when they formed."""

from pathlib import Path

from mech_pipeline.commands.output import say, show
from mech_pipeline.plain_text import PlainTable

_RUNS = """
with kept as (select run, count(*) as checkpoints, max(step) as last from checkpoints group by run),
formed as (
    select run, string_agg(mechanism || case when censored then ' never' else ' ' || step end, ', ' order by mechanism) as steps
    from formation group by run
)
select experiment, run, status, coalesce(checkpoints, 0), last, coalesce(steps, '') from runs
left join kept using (run) left join formed using (run) order by experiment, arm, seed
"""


def ls() -> None:
    """List experiments and their runs: status, checkpoints, when they formed. Those without runs are files to `mech run`."""
    from mech_pipeline.project import find_store
    from mech_pipeline.store.files.open import open_files
    from mech_pipeline.store.layout import check_readable
    from mech_pipeline.store.reading.shared import reading

    rows = []
    if check_readable(open_files(root := find_store())) is not None:
        with reading(root, ["runs", "checkpoints", "formation"]) as connection:
            rows = connection.execute(_RUNS).fetchall()
    if rows:
        shown = PlainTable("experiment", "run", "status", "checkpoints", "last step", "formed at (updates)")
        for experiment, run, status, checkpoints, last, formed in rows:
            step = "" if last is None else str(last)
            shown.add_row(experiment, run, status, str(checkpoints), step, formed)
        show(shown)
    ran = {experiment for experiment, *_ in rows}
    for file, name in _files():
        if name not in ran:
            say(f"{name}: never run; mech run {file}")


def _files() -> list[tuple[str, str]]:
    """The experiment files of the project around, with the name each gives."""
    import yaml

    from mech_pipeline.errors import MechError
    from mech_pipeline.project import find_project
    from mech_pipeline.spec.experiment_files import experiment_files

    try:
        home = find_project().home
    except MechError:  # a store can be named where no project is
        return []
    found = []
    for path in experiment_files(home / "experiments"):
        try:
            name = yaml.safe_load(path.read_text(encoding="utf-8")).get("experiment", path.stem)
        except (yaml.YAMLError, AttributeError, UnicodeError, OSError):
            name = f"{path.stem} (cannot be read; `mech status` says why)"
        found.append((_short(path), str(name)))
    return found


def _short(path: Path) -> str:
    """As one would type it in the current folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
