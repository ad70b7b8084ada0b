"""An experiment of the store as a bundle: everything is written aside, and the folder gets its name when it is whole."""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import yaml

from mech_pipeline import __version__
from mech_pipeline.data.examples import id_names
from mech_pipeline.errors import MechError, unknown
from mech_pipeline.exchange.bundle.card import card, licence_of
from mech_pipeline.exchange.bundle.manifest import Manifest, Run, chained, described_files, write_manifest
from mech_pipeline.exchange.bundle.rows import FOLDER, select_examples, write_table
from mech_pipeline.exchange.bundle.whole import Brought, bring_along, name_states
from mech_pipeline.pipeline.checkpoints import is_pointer
from mech_pipeline.pipeline.tokens.tokens import stored_pool
from mech_pipeline.progress import Emit, Progress
from mech_pipeline.project import explore_name, report_name
from mech_pipeline.spec.experiment import Experiment
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.reading import connect
from mech_pipeline.store.reading.connection import quoted
from mech_pipeline.store.store import Store
from mech_pipeline.store.tables.all import TABLES

_NEEDED = (
    "runs",
    "tokens",
    "token_shards",
    "examples",
    "example_documents",
    "probe_sequences",
    "checkpoints",
    "batches",
)
"""Tables without which a bundle is no bundle."""


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        file: the experiment file, if there is one; figures are drawn from what it says.
        resolved: the experiment that it describes.
        licence: of the training text; none: what its origin tells.
        left_out: tables that do not go along; a store that gets the bundle makes them again.
        whole: write also the states of runs from outside, which the store names and does not hold.
        home: folder that relative names of their places begin at; none: the current one.
    """

    experiment: str
    file: Path | None = None
    resolved: Experiment | None = None
    licence: str | None = None
    left_out: tuple[str, ...] = ()
    whole: bool = False
    home: Path | None = None


def export(store: Store, wish: Wish, folder: Path, emit: Emit = lambda said: None) -> Manifest:
    """Writes the bundle; a killed export leaves `.<name>.unfinished` beside it, which the next one removes.

    Raises:
        MechError: there is no such experiment, the folder is taken, or a file of the store is missing or damaged.
    """
    if wrong := sorted(set(wish.left_out) - set(TABLES)):
        raise unknown("table", wrong[0], TABLES)
    if kept := sorted(set(wish.left_out) & set(_NEEDED)):
        raise MechError(f"table {kept[0]} cannot be left out: without it nothing can be read", "leave out others")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise MechError(f"{folder} is there already", "name a folder that is not")
    making = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(making, ignore_errors=True)
    (making / FOLDER).mkdir(parents=True)
    manifest = _write(store, wish, making, emit)
    if folder.exists():
        folder.rmdir()
    making.rename(folder)
    return manifest


def _write(store: Store, wish: Wish, folder: Path, emit: Emit) -> Manifest:
    names = [name for name in TABLES if name not in wish.left_out]
    with connect(store.root, external=True) as connection:
        specs = _specs(connection, wish.experiment)
        imported = [spec for spec in specs if spec.imported is not None]
        there = [spec.at(wish.home or Path.cwd()) for spec in imported] if wish.whole else []
        brought = bring_along(store, there, folder, emit)
        runs = _runs(connection, wish.experiment, brought)
        named = _blobs(connection, wish.experiment, [run.run for run in runs], names)
        blobs = [blob for blob in named if blob.uri not in brought]
        progress = Progress(emit, f"export {wish.experiment}", len(names) + len(blobs), "files")
        select_examples(connection, _example_ids(store, connection, [run.run for run in runs]))
        counts = {}
        for done, name in enumerate(names, start=1):
            counts[name] = write_table(connection, TABLES[name], wish.experiment, [run.run for run in runs], folder)
            progress(done)
        for copied, blob in enumerate(blobs, start=len(names) + 1):
            _copy(store, blob, folder)
            progress(copied)
        if brought:
            name_states(folder / FOLDER / "checkpoints.parquet", brought)
        _write_specs(specs, wish, folder)
        figures = _write_report(store, connection, wish, folder)
    counts = {name: count for name, count in counts.items() if count}
    licence = wish.licence or licence_of(specs)
    question = "" if wish.resolved is None else wish.resolved.question
    whole = not any(is_pointer(blob) for blob in blobs)
    text = card(wish.experiment, question, runs, counts, licence, figures, imported, whole=whole)
    (folder / "README.md").write_text(text, encoding="utf-8")
    made_by = f"mech-pipeline {__version__}"
    manifest = Manifest(wish.experiment, made_by, licence, wish.left_out, runs, described_files(folder))
    write_manifest(folder, manifest)
    return manifest


def _specs(connection: duckdb.DuckDBPyConnection, experiment: str) -> list[RunSpec]:
    """The specs of the experiment's runs.

    Raises:
        MechError: there are none.
    """
    rows = connection.execute("select spec from runs where experiment = ? order by arm, seed", [experiment]).fetchall()
    if not rows:
        known = [name for (name,) in connection.execute("select distinct experiment from runs").fetchall()]
        raise unknown("experiment", experiment, known, "`mech run` one")
    return [RunSpec.model_validate_json(spec) for (spec,) in rows]


def _runs(connection: duckdb.DuckDBPyConnection, experiment: str, brought: Brought) -> tuple[Run, ...]:
    """The experiment's runs with their chains."""
    rows = connection.execute(
        "select run, fingerprint, status from runs where experiment = ? order by arm, seed", [experiment]
    ).fetchall()
    states: dict[str, list[tuple[int, str, str]]] = {run: [] for run, *_ in rows}
    found = (
        "select run, uri, step, data_version, sha256 from checkpoints where list_contains(?, run) order by run, step"
    )
    for run, uri, step, version, sha256 in connection.execute(found, [list(states)]).fetchall():
        states[run].append((step, version, brought[uri].sha256 if uri in brought else sha256))
    return tuple(Run(run, fingerprint, status, chained(fingerprint, states[run])) for run, fingerprint, status in rows)


def _example_ids(store: Store, connection: duckdb.DuckDBPyConnection, runs: Sequence[str]) -> list[str]:
    """Of all examples in the pools of the runs; runs that share a pool name it once."""
    among = ", ".join(map(quoted, runs))
    pools = f"select min(run) from tokens where artifact = 'pool' and run in ({among}) group by data_version"
    found = set[str]()
    for (run,) in connection.execute(pools).fetchall():
        ids = stored_pool(store, run).ids
        found.update(id_names(ids[np.arange(len(ids))]))
    return sorted(found)


def _blobs(
    connection: duckdb.DuckDBPyConnection, experiment: str, runs: Sequence[str], names: Iterable[str]
) -> list[Blob]:
    """Every file that the rows name, once."""
    found: dict[str, Blob] = {}
    for table in (TABLES[name] for name in names if TABLES[name].has_blobs):
        owner, mine = ("run", runs) if table.per_run else ("experiment", [experiment])
        among = ", ".join(map(quoted, mine))
        sql = f"select distinct uri, bytes, sha256 from {table.name} where {owner} in ({among}) order by uri"
        found |= {row[0]: Blob(*row) for row in connection.execute(sql).fetchall()}
    return list(found.values())


def _copy(store: Store, blob: Blob, folder: Path) -> None:
    path = folder / blob.uri
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        store.get_blob(blob, "a file of the bundle", "`mech verify --repair`, then `mech run` the experiment")
    )


def _write_specs(specs: Sequence[RunSpec], wish: Wish, folder: Path) -> None:
    (folder / "specs").mkdir()
    for spec in specs:
        text = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        (folder / "specs" / f"{spec.run}.yaml").write_text(text, encoding="utf-8")
    if wish.file is not None:
        shutil.copyfile(wish.file, folder / "experiment.yaml")


def _write_report(store: Store, connection: duckdb.DuckDBPyConnection, wish: Wish, folder: Path) -> list[str]:
    """The report as people find it, and its figures for papers; returns the names of the figures."""
    (folder / "reports").mkdir()
    for name in (report_name(wish.experiment), explore_name(wish.experiment)):
        with suppress(FileNotFoundError):
            (folder / name).write_bytes(store.files.read(name))
    if wish.resolved is None:
        return []
    from mech_pipeline.reports.paper import save_figures  # matplotlib takes a second to load

    written = save_figures(connection, wish.resolved, folder / "figures")
    return [path.relative_to(folder).as_posix() for path in written]
