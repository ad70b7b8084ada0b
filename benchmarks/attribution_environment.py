"""The virtual environment in which peer libraries run.

They pin what this project does not want (torchvision among others, which brings another torch), so they are installed
without their dependencies beside the same torch, and what they import is installed by name.
"""

import subprocess
import venv
from pathlib import Path

from store_measure import Say

ENVIRONMENT = Path(__file__).parent / ".venv-peers"
PEERS = {"bergson": "bergson==2.5.1", "dattri-llm": "dattri-llm==0.1.0", "kronfluence": "kronfluence==1.0.1"}
_TORCH = "torch==2.13.0"
_NEEDED = (
    *("accelerate", "datasets", "jaxtyping", "ml_dtypes", "natsort", "numpy", "scipy", "peft", "petname", "pyarrow"),
    *("pyyaml", "simple-parsing", "torchopt", "transformers>=5,<6", "bitsandbytes", "huggingface-hub", "einops"),
    *("einconv", "opt-einsum", "safetensors", "tqdm"),
)


def is_installed(python: Path) -> bool:
    """Whether all peers are importable there."""
    if not python.exists():
        return False
    names = ", ".join(peer.replace("-", "_") for peer in PEERS)
    return subprocess.run([python, "-c", f"import {names}"], capture_output=True).returncode == 0


def install(environment: Path, say: Say) -> dict[str, str]:
    """Makes the environment; returns why a library is missing from it, by library."""
    say(f"peers: installing into {environment}, about 2 GB")
    venv.create(environment, with_pip=True)
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    for needed in ((_TORCH,), (_TORCH, *_NEEDED)):
        if fault := _fault([*pip, *needed]):
            return dict.fromkeys(PEERS, fault)
    faults = {peer: _fault([*pip, "--no-deps", release]) for peer, release in PEERS.items()}
    return {peer: fault for peer, fault in faults.items() if fault}


def _fault(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    return f"not installed: {last_line(done.stderr)}" if done.returncode else ""


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:160] if lines else "no message"
