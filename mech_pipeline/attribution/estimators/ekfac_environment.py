"""The environment that EK-FAC runs in: how to make it, whether it is complete, and running the worker there."""

import os
import subprocess
from pathlib import Path

from mech_pipeline.errors import MechError
from mech_pipeline.progress import Emit

PYTHON = "MECH_EKFAC_PYTHON"
INSTALL = (
    "python -m venv ekfac && ekfac/bin/pip install torch==2.13.0 transformer-lens==4.3.0 'transformers>=5,<6' pydantic "
    "jaxtyping safetensors accelerate einops einconv opt-einsum tqdm && ekfac/bin/pip install --no-deps "
    f"kronfluence==1.0.1, then export {PYTHON}=$PWD/ekfac/bin/python"
)
NEEDED = (
    "kronfluence",
    "torch",
    "transformer_lens",
    "transformers",
    "pydantic",
    "jaxtyping",
    "safetensors",
    "accelerate",
    "einops",
    "einconv",
    "opt_einsum",
    "tqdm",
)


def interpreter_of(python: str | None) -> str:
    """The Python with kronfluence.

    Raises:
        MechError: none is named, it is not there, or it lacks a package.
    """
    found = python or os.environ.get(PYTHON)
    if not found:
        raise MechError("EK-FAC needs kronfluence in an environment of its own, and none is named", INSTALL)
    if not Path(found).exists():
        raise MechError(f"EK-FAC: there is no Python at {found}", INSTALL)
    code = f"import importlib.util as u; print(*[n for n in {NEEDED!r} if u.find_spec(n) is None])"
    missing = subprocess.run([found, "-c", code], capture_output=True, text=True, check=False)
    if missing.returncode or missing.stdout.strip():
        lacks = missing.stdout.strip() or missing.stderr.strip()[-200:]
        raise MechError(f"EK-FAC: the environment of {found} lacks {lacks}", INSTALL)
    return found


def run_worker(interpreter: str, folder: Path, emit: Emit) -> None:
    """Runs the worker on a job in a folder.

    It imports this package through a link of its own, so that nothing else of this environment is seen there.

    Args:
        emit: receives what it says.

    Raises:
        MechError: it failed.
    """
    code = folder / "code"
    code.mkdir()
    (code / "mech_pipeline").symlink_to(Path(__file__).parents[2], target_is_directory=True)
    command = [interpreter, "-m", "mech_pipeline.attribution.estimators.ekfac_worker", str(folder)]
    errors = folder / "stderr"
    with errors.open("w") as stderr:
        environment = {**os.environ, "PYTHONPATH": str(code)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment) as process:
            assert process.stdout is not None, "it is a pipe"
            for line in process.stdout:
                emit(line.rstrip())
    if process.returncode:
        said = errors.read_text().strip().splitlines() or [f"exit status {process.returncode}"]
        context = "\n".join(said[-12:])
        raise MechError(f"EK-FAC failed in {interpreter}: {said[-1]}", f"the last lines it wrote:\n{context}")
