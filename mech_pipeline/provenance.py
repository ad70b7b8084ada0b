"""With what a result was made: versions of Python and packages, git commit, device."""

import json
import os
import platform
import subprocess
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("mech-pipeline", "torch", "transformer-lens", "tokenizers", "numpy", "deltalake", "duckdb", "dagster")


@lru_cache(maxsize=1)
def versions_json() -> str:
    """Versions and git commit as JSON text."""
    return json.dumps(
        {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}, "git_commit": git_commit()}
    )


@lru_cache(maxsize=1)
def git_commit() -> str:
    """The commit of this source tree, `+` appended if it has uncommitted changes; "" outside a checkout.

    An image holds no checkout: there MECH_GIT_COMMIT says from which one it was built.
    """
    if built_from := os.environ.get("MECH_GIT_COMMIT"):
        return built_from
    folder = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+" if dirty else "")


def device(kind: str, threads: int) -> str:
    """What decides the bits of a run besides its spec."""
    if kind == "cuda":
        import torch

        return f"cuda ({torch.cuda.get_device_name()})" if torch.cuda.is_available() else "cuda (not on this machine)"
    return f"cpu ({platform.machine()}), {threads} thread{'s' if threads > 1 else ''}"


@lru_cache(maxsize=1)
def machine() -> str:
    """Processor, cores that this process may use, memory and system: what a time depends on. No name of the machine.

    Where the kernel does not name the processor, its architecture stands instead.
    """
    cores, system = len(os.sched_getaffinity(0)), f"{platform.system()} {platform.release().split('-')[0]}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {cores} core{'s' if cores > 1 else ''}, {memory:.0f} GiB, {system}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join(named[0].split()) if named else platform.machine()
