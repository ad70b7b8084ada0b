"""What was converted, as a folder of `transformers` with the optimizer's moments beside the weights."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from mech_pipeline.exchange.suites.layout import CONFIG, MOMENTS

Named = dict[str, Tensor]
Parts = dict[str, Named]
"""`model`, and where they are known `exp_avg` and `exp_avg_sq`: tensors by the names that `transformers` has for them."""


@contextmanager
def written(convert: Callable[[Path], Parts], config: bytes) -> Iterator[Path]:
    """A folder with weights, config.json, and moments if there are some; it is gone after the block.

    Args:
        convert: makes the parts; gets a folder for what it must put down on the way.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        parts = convert(folder)
        save_file(_plain(parts.pop("model")), folder / "model.safetensors", metadata={"format": "pt"})
        if parts:
            moments = {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
            save_file(_plain(moments), folder / MOMENTS)
        (folder / CONFIG).write_bytes(config)
        yield folder


def _plain(named: Named) -> Named:
    """Each tensor with memory of its own, as safetensors wants it."""
    return {name: tensor.contiguous().clone() for name, tensor in named.items()}
