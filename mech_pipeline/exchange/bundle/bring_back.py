"""A bundle into a store: everything is checked before anything is written, and rows of `runs`, which make runs exist, come last.

What a killed import leaves are files and rows of runs that do not exist yet; the same command again completes them.
"""

from pathlib import Path

import pyarrow as pa

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.bundle.manifest import MANIFEST, Manifest, chained, check, read_manifest
from mech_pipeline.exchange.bundle.rows import read_tables, write_rows
from mech_pipeline.progress import Emit, Progress
from mech_pipeline.spec.fingerprint import file_sha256
from mech_pipeline.store.store import Store

_LAST = ("checkpoints", "runs")
"""Written after all others, in this order."""


def bring_back(store: Store, folder: Path, emit: Emit = lambda said: None) -> Manifest | None:
    """Imports a bundle; none: all of it is in the store already.

    Raises:
        MechError: the bundle is damaged, of a newer version, or the store has other runs of these names.
    """
    manifest = read_whole(folder, emit)
    tables = read_tables(folder)
    _check_rows(folder, manifest, tables)
    if _is_there(store, manifest):
        return None
    origin = f"bundle {file_sha256(folder / MANIFEST)[:12]}"
    files = [file for file in manifest.files if file.name.startswith(("blobs/", "reports/"))]
    progress = Progress(emit, f"import {manifest.experiment}", len(files) + len(tables), "files")
    with store.lock(f"import-{manifest.experiment}", f"import experiment {manifest.experiment}"):
        for done, file in enumerate(files, start=1):
            found = store.files.info(file.name)
            if found is None or found.bytes != file.bytes or file.name.startswith("reports/"):
                store.files.write(file.name, (folder / file.name).read_bytes())
            progress(done)
        names = [name for name in tables if name not in _LAST] + [name for name in _LAST if name in tables]
        for done, name in enumerate(names, start=len(files) + 1):
            write_rows(store, name, tables[name], origin)
            progress(done)
    return manifest


def read_whole(folder: Path, emit: Emit = lambda said: None) -> Manifest:
    """The manifest of a bundle, every file of which is as it was written.

    Raises:
        MechError: it is not.
    """
    count = len(read_manifest(folder).files)
    return check(folder, emit, Progress(emit, f"check {folder.name}", count, "files"))


def _check_rows(folder: Path, manifest: Manifest, tables: dict[str, pa.Table]) -> None:
    """That rows, files and manifest speak of the same runs and states.

    Raises:
        MechError: they do not.
    """
    named = {run.run for run in manifest.runs}
    if "runs" not in tables or set(tables["runs"]["run"].to_pylist()) != named:
        raise MechError(f"bundle {folder}: its manifest and its table runs name other runs", "export it again")
    files = {file.name: file.sha256 for file in manifest.files}
    for name, rows in tables.items():
        if "run" in rows.column_names and (other := set(rows["run"].unique().to_pylist()) - named):
            raise MechError(
                f"bundle {folder}: table {name} has rows of {sorted(other)[0]}, which is no run of it",
                "export it again",
            )
        if "uri" in rows.column_names:
            for uri, sha256 in zip(rows["uri"].to_pylist(), rows["sha256"].to_pylist(), strict=True):
                if files.get(uri) != sha256:
                    raise MechError(f"bundle {folder}: table {name} names {uri}, which is not in it", "export it again")
    _check_chains(folder, manifest, tables)


def _check_chains(folder: Path, manifest: Manifest, tables: dict[str, pa.Table]) -> None:
    states = (
        tables["checkpoints"].select(["run", "step", "data_version", "sha256"]).to_pylist()
        if "checkpoints" in tables
        else []
    )
    for run in manifest.runs:
        mine = [(row["step"], row["data_version"], row["sha256"]) for row in states if row["run"] == run.run]
        if chained(run.fingerprint, mine) != run.states:
            raise MechError(
                f"bundle {folder}: the states of run {run.run} are not those of its chain", "export it again"
            )


def _is_there(store: Store, manifest: Manifest) -> bool:
    """Whether the store has all the runs already.

    Raises:
        MechError: it has some of them, or others of the same names.
    """
    with store.reading("runs") as connection:
        known = dict(connection.execute("select run, fingerprint from runs").fetchall())
    there = [run for run in manifest.runs if run.run in known]
    for run in there:
        if known[run.run] != run.fingerprint:
            raise MechError(
                f"the store has another run {run.run} (fingerprint {known[run.run][:12]}…, the bundle's {run.fingerprint[:12]}…)",
                "import it into a store of its own: MECH_STORE=FOLDER mech import …",
            )
    if there and len(there) < len(manifest.runs):
        raise MechError(
            f"the store has run {there[0].run} of the bundle and not all of them; nothing was imported",
            "import it into a store of its own: MECH_STORE=FOLDER mech import …",
        )
    return bool(there)
