"""The state of one revision, under the names and in the precision that everything here uses."""

import torch
from safetensors.torch import load_file, save

from mech_pipeline.exchange.suites.layout import MOMENTS
from mech_pipeline.exchange.suites.layouts import LAYOUTS
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.training.architectures import checkpoint_weights


def revision_state(spec: RunSpec, step: int, *, compare: bool = False) -> bytes:
    """`model.<parameter>` of a revision in fp32, and its moments if it brings them, as safetensors; equal states, equal bytes.

    Args:
        compare: refuse it if the model would compute here what it does not in `transformers`.

    Raises:
        MechError: the revision is not there or not whole, or does not fit the model.
    """
    assert spec.imported is not None, "asked for only of a run from outside"
    name, _ = spec.imported.revision(step)
    with LAYOUTS[spec.imported.layout].opened(spec.imported, name) as folder:
        source = f"{spec.imported.place} at {name}"
        weights = checkpoint_weights(spec.model, folder, source, spec.data.context, compare=compare)
        tensors = {f"model.{each}": tensor for each, tensor in weights.items()}
        if (folder / MOMENTS).is_file():
            tensors |= load_file(folder / MOMENTS)
        plain = {each: tensor.to(torch.float32).contiguous().clone() for each, tensor in tensors.items()}
    return save(plain, metadata={"step": str(step)})
