"""`mech discover`: what formed in the runs of an experiment that nobody named, most gained first; atoms of their updates."""

from typing import TYPE_CHECKING, Annotated

import typer

from mech_pipeline.commands import completing
from mech_pipeline.commands.opening import existing_store
from mech_pipeline.commands.output import say, show
from mech_pipeline.plain_text import PlainTable

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TABLES = [
    "runs",
    "examples",
    "discoveries",
    "discovery_tokens",
    "atom_windows",
    "atoms",
    "atom_examples",
    "atom_tracks",
]
_FOUND = """
select run, cluster, is_discovery, tokens, step, lower, upper, half_step, looking, looking_low, "drop", hidden, components
from discoveries join runs using (run) where experiment = ? order by is_discovery desc, looking_low desc, run, cluster
"""
_TOKENS = """
select "before", text from discovery_tokens where run = ? and cluster = ? order by loss_first - loss_last desc limit 3
"""
_WRITTEN = 256
"""Tokens of a written mechanism, at most: it is measured at every checkpoint, and a cluster by needs can have thousands."""
_SEQUENCES = f"""
select token_ids from (
    select probe_token, token_ids from discovery_tokens where run = ? and cluster = ? order by md5(token_ids) limit {_WRITTEN})
order by probe_token
"""
_TRACKS = """
select t.run, t.track, t.windows, t.birth, t.peak, t.death, t.coherence, t.by_chance, t.components from atom_tracks t
join runs using (run) where experiment = ? order by t.windows desc, t.coherence desc, t.run, t.track
"""
_KINDS = """
select string_agg(kind || ' ' || n, ', ' order by n desc, kind) from (
    select kind, count(*) as n from atoms a join atom_examples m using (run, atom) join examples using (example_id)
    where a.run = ? and a.track = ? and a.step = ? group by kind)
"""
_LOOKED = "select count(distinct run) from atom_windows join runs using (run) where experiment = ?"
_ATOMS_SHOWN = 10
_ASKED = "select count(distinct run) from discovery_tokens join runs using (run) where experiment = ?"


def discover(
    experiment: Annotated[
        str, typer.Argument(help="experiment name, for example induction", autocompletion=completing.experiments)
    ],
    every: Annotated[
        bool, typer.Option("--all", help="also clusters that are no discovery, and more than ten atoms")
    ] = False,
    write: Annotated[
        str | None, typer.Option(metavar="RUN/CLUSTER", help="write that cluster as a mechanism into mechanisms/")
    ] = None,
) -> None:
    """Rank what formed in an experiment that nobody named: which tokens, when, where; and which examples moved it alike."""
    from mech_pipeline.errors import MechError
    from mech_pipeline.store.reading.shared import reading

    if write is not None:
        _write(write)
        return
    with reading(existing_store().root, _TABLES) as connection:
        ((asked,),) = connection.execute(_ASKED, [experiment]).fetchall()
        ((looked,),) = connection.execute(_LOOKED, [experiment]).fetchall()
        if not asked and not looked:
            raise MechError(
                f"experiment {experiment} has no discoveries, and no run in which they were looked for",
                "set `discovery: {tokens: 512}` in its file and `mech run` it",
            )
        if asked:
            _clusters(connection, experiment, asked, every)
        if looked:
            _atoms(connection, experiment, looked, every)


def _clusters(connection: "DuckDBPyConnection", experiment: str, asked: int, every: bool) -> None:
    """Clusters of tokens, most gained by looking first."""
    rows = connection.execute(_FOUND, [experiment]).fetchall()
    chosen = [row for row in rows if row[2] or every]
    shown = PlainTable(
        "run", "cluster", "tokens", "begins", "half", "by looking (nats)", "drop", "components", "such as"
    )
    for row in chosen:
        tokens = connection.execute(_TOKENS, [row[0], row[1]]).fetchall()
        shown.add_row(*_cells(*row), " ".join(f"{before[-12:]!r}→{text!r}" for before, text in tokens))
    if chosen:
        show(shown)
    formed = sum(1 for row in rows if row[2])
    say(f"{formed} of {len(rows)} clusters in {asked} runs are discoveries; docs/discovery.md says what that means")


def _atoms(connection: "DuckDBPyConnection", experiment: str, looked: int, every: bool) -> None:
    """Atoms of applied updates that the next window found again, those that go on longest first."""
    rows = connection.execute(_TRACKS, [experiment]).fetchall()
    kept = [row for row in rows if row[2] > 1]
    chosen = kept if every else kept[:_ATOMS_SHOWN]
    shown = PlainTable(
        "run", "atom", "windows", "from, most, to", "coherence (chance)", "components", "kinds at its most"
    )
    for run, track, windows, birth, peak, death, coherence, chance, components in chosen:
        ((kinds,),) = connection.execute(_KINDS, [run, track, peak]).fetchall()
        when, few = f"{birth}, {peak}, {death}", ", ".join(components.split(", ")[:4])
        shown.add_row(run, str(track), str(windows), when, f"{coherence:.3f} ({chance:.3f})", few, kinds)
    if chosen:
        show(shown)
    said = f"{len(kept)} of {len(rows)} atoms of applied updates in {looked} runs were found again in the next window"
    say(said if len(chosen) == len(kept) else f"{said}; --all shows more than {_ATOMS_SHOWN}")


def _write(named: str) -> None:
    """Leaves a cluster's tokens in a file of the project's folder of mechanisms."""
    from mech_pipeline.discovery.found import mechanism_file
    from mech_pipeline.errors import MechError
    from mech_pipeline.project import find_project
    from mech_pipeline.store.reading.shared import reading

    run, _, cluster = named.rpartition("/")
    with reading(existing_store().root, ["discovery_tokens", "cluster_courses"]) as connection:
        rows = connection.execute(_SEQUENCES, [run, cluster]).fetchall() if cluster.isdecimal() else []
        by_needs = bool(connection.execute("select 1 from cluster_courses where run = ? limit 1", [run]).fetchall())
    if not rows:
        raise MechError(f"there is no cluster {named}", "`mech discover NAME --all` lists them; write RUN/CLUSTER")
    project = find_project()
    folder = project.mechanisms or project.home / "mechanisms"
    name = f"found_{run.replace('.', '_')}_{cluster}"
    folder.mkdir(parents=True, exist_ok=True)
    sequences = [[int(token) for token in ids.split()] for (ids,) in rows]
    content = mechanism_file(f"cluster {cluster} of run {run}", sequences, by_needs)
    (folder / f"{name}.py").write_text(content, encoding="utf-8")
    what = "what order is worth to them" if by_needs else "minus their mean loss"
    say(f"{folder / f'{name}.py'}: {len(rows)} tokens, {what}; name it in an experiment: mechanisms: [{name}]")


def _cells(
    run: str,
    cluster: int,
    is_discovery: bool,
    tokens: int,
    step: int,
    lower: int,
    upper: int,
    half: int,
    looking: float,
    low: float,
    drop: float,
    hidden: bool,
    components: str,
) -> tuple[str, ...]:
    name = f"{cluster}{'' if is_discovery else ' (no discovery)'}{', hidden' if hidden else ''}"
    when = f"{step} [{lower}, {upper}]"
    few = ", ".join(components.split(", ")[:4])
    return run, name, str(tokens), when, str(half), f"{looking:.2f} (≥ {low:.2f})", f"{drop:.2f}", few
