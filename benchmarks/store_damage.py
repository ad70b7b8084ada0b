"""One flipped bit in each of many files: `verify_store` names every data file, blob and log among them.

Records of checksums are flipped on their own: a file and the only record of it, both flipped, is one fault too many.
"""

import random
import shutil
import time
from collections import Counter
from pathlib import Path

from store_measure import Result, Say
from store_reading import fill_all_tables

from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.store import Store


def measure_flips(folder: Path, flips: int, commits: int, bulk_bytes: int, say: Say) -> list[Result]:
    """Flips one bit each in `flips` files at once; seconds per GB of the whole store.

    Args:
        commits: commits in the busiest tables.
        bulk_bytes: size of all blobs together, so that seconds per GB are about reading, not about many small files.
    """
    store = Store(folder / "whole")
    fill_all_tables(store, commits, say, blob_bytes=max(8, bulk_bytes // (commits + 24)))
    began = time.perf_counter()
    whole = verify_store(store.files)
    seconds = time.perf_counter() - began
    missed, extra = _missed(folder, ("data", "log", "blobs"), flips, say)
    missed_records, _ = _missed(folder, ("checksums",), max(1, flips // 10), say)
    return [
        Result("flips", f"flipped files not found, of {flips}", sum(missed.values()), "files", 0),
        *(Result("flips", f"of these {kind}", count, "files") for kind, count in missed.items()),
        Result("flips", "named besides them", extra, "files"),
        Result("flips", "flipped checksum records not found", sum(missed_records.values()), "files", 0),
        Result("flips", "damage found in the whole store", len(whole.damage), "files", 0),
        Result("flips", f"verify, {whole.bytes / 1e9:.2f} GB in {whole.checked} files", seconds, "s"),
        Result("flips", "verify", seconds / (whole.bytes / 1e9), "s/GB"),
    ]


def _missed(folder: Path, kinds: tuple[str, ...], flips: int, say: Say) -> tuple[Counter[str], int]:
    """Flipped files that are not named, by kind, and files named besides: a flipped log takes others with it."""
    broken = folder / "broken"
    shutil.copytree(folder / "whole", broken)
    planted = _flip_files(broken, kinds, flips)
    if len(planted) < flips:
        raise ValueError(f"the store has only {len(planted)} files to flip, {flips} were asked for: raise --commits")
    named = {finding.name for finding in verify_store(Store(broken).files).damage}
    shutil.rmtree(broken)
    for name in set(planted) - named:
        say(f"flips: {planted[name]} {name} not named")
    return Counter(kind for name, kind in planted.items() if name not in named), len(named - set(planted))


def _flip_files(root: Path, kinds: tuple[str, ...], count: int) -> dict[str, str]:
    """Flips a bit in files of the kinds in turn; returns the names and kinds of what was flipped."""
    chance = random.Random(0)
    paths: dict[str, list[Path]] = {kind: [] for kind in kinds}
    for path in sorted(root.rglob("*")):
        kind = _kind(path.relative_to(root))
        if path.is_file() and kind in paths:
            paths[kind].append(path)
    for found in paths.values():
        chance.shuffle(found)
    flipped: dict[str, str] = {}
    while len(flipped) < count and any(paths.values()):
        for kind, found in paths.items():
            if found and len(flipped) < count:
                path = found.pop()
                _flip(path, chance)
                flipped[path.relative_to(root).as_posix()] = kind
    return flipped


def _kind(name: Path) -> str:
    if name.parts[0] == "tables":
        return "log" if "_delta_log" in name.parts else "data"
    return name.parts[0]


def _flip(path: Path, chance: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.chmod(0o644)
    path.write_bytes(content)
