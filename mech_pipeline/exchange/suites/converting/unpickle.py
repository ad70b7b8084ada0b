"""Pickles of other programs as plain data, in a process of its own that runs none of their code.

    python -m mech_pipeline.exchange.suites.converting.unpickle FOLDER FILE …

A pickle names functions and classes to be called. Here only those of `ALLOWED` are: tensors, ordered mappings, numbers. Any
other name becomes an empty thing that takes whatever it is given and does nothing (DeepSpeed's loss scaler, argparse's
Namespace). What is left goes to FOLDER, a safetensors file for each: tensors, with names of nested mappings joined by "/";
numbers and texts in its metadata.
"""

import json
import pickle  # noqa: TID251, in a process of its own that calls nothing but what is listed
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mech_pipeline.errors import MechError

ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    **{
        ("torch", name): getattr(torch, name)
        for name in ("FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "IntStorage", "DoubleStorage")
    },
    **{("torch", name): getattr(torch, name) for name in ("float32", "float16", "bfloat16", "int64", "int32")},
}
"""What a pickle may call."""
_SECONDS = 600


class _Nothing:
    """Stands for whatever is not allowed: it can be made, filled and called, and does nothing."""

    def __init__(self, *args: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __call__(self, *args: object, **named: object) -> "_Nothing":
        return self


class _Careful(pickle.Unpickler):
    """Finds names of the list, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The thing of that name, or nothing."""
        return ALLOWED.get((module, name), _Nothing)


_PICKLE = SimpleNamespace(
    Unpickler=_Careful, load=lambda file, **named: _Careful(file, **named).load(), __name__="careful_pickle"
)


Read = tuple[dict[str, Any], dict[str, Tensor]]
"""Numbers and texts of a pickle by name, and its tensors in the order that they have there."""


def tensors_of(paths: Sequence[Path], scratch: Path) -> list[Read]:
    """What some pickles hold; one other process reads them all.

    Args:
        scratch: folder for what goes from one process to the other.

    Raises:
        MechError: one cannot be read, or is none.
    """
    command = [
        sys.executable,
        "-m",
        "mech_pipeline.exchange.suites.converting.unpickle",
        str(scratch),
        *map(str, paths),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        file = next((path for place, path in enumerate(paths) if not _target(scratch, place).is_file()), paths[-1])
        raise MechError(f"{file} cannot be read: {said[:300]}", "fetch it again")
    return [_read(_target(scratch, place)) for place in range(len(paths))]


def _target(scratch: Path, place: int) -> Path:
    return scratch / f"unpickled-{place}.safetensors"


def _read(path: Path) -> Read:
    with safe_open(path, "pt") as opened:
        said = opened.metadata() or {}
        tensors = {name: opened.get_tensor(name) for name in json.loads(said["names"])}
    path.unlink()
    return json.loads(said["plain"]), tensors


def main() -> None:
    """Converts some files; see the module."""
    scratch = Path(sys.argv[1])
    for place, source in enumerate(sys.argv[2:]):
        _convert(Path(source), _target(scratch, place))


def _convert(source: Path, target: Path) -> None:
    content = torch.load(source, map_location="cpu", pickle_module=_PICKLE, weights_only=False)  # noqa: TID251, as above
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for name, value in _leaves(content, ""):
        if isinstance(value, Tensor):
            tensors[name] = value.detach().contiguous().clone()
        else:
            plain[name] = value
    save_file(tensors, target, metadata={"plain": json.dumps(plain), "names": json.dumps(list(tensors))})


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Tensors, numbers, texts and shapes, by the way that leads to them."""
    if isinstance(value, Tensor | int | float | str | bool):
        yield name, value
    elif isinstance(value, torch.Size):
        yield name, list(value)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, f"{name}/{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for place, each in enumerate(value):
            yield from _leaves(each, f"{name}/{place}" if name else str(place))


if __name__ == "__main__":
    main()
