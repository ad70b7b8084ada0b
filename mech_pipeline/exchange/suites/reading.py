"""The weights of one revision, under the names and in the precision that everything here uses."""

import torch
from safetensors.torch import save

from mech_pipeline.exchange.suites.layouts import LAYOUTS
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.training.architectures import checkpoint_weights


def revision_weights(spec: RunSpec, step: int, *, compare: bool = False) -> bytes:
    """`model.<parameter>` of a revision in fp32, as safetensors; equal weights give equal bytes.

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
    plain = {f"model.{each}": tensor.to(torch.float32).contiguous().clone() for each, tensor in weights.items()}
    return save(plain, metadata={"step": str(step)})
