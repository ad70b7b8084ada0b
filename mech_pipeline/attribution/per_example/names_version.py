"""The version of the names that components have (`component_labels.py`), where rows that hold them must know it."""

from mech_pipeline.spec.model import Model


def names_version(model: Model, *, neurons: bool = False) -> list[str]:
    """What the names of a model's components add to the fingerprint of rows that hold them.

    Version 1 is no entry at all. Version 2 holds for the native family with MLPs, whose weights version 1 called
    `L0.MLP.fc_in` and `.fc_out`: rows with those names are not current. Names by neuron are the same in both.

    >>> names_version(Model(d_mlp=32)), names_version(Model()), names_version(Model(d_mlp=32), neurons=True)
    (['component names 2'], [], [])
    """
    renamed = model.family == "native" and model.d_mlp is not None and not neurons
    return ["component names 2"] if renamed else []
