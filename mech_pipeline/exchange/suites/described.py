"""A run from outside, with what its place says of it: which revisions there are, and the model that they are of."""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mech_pipeline.errors import MechError
from mech_pipeline.exchange.suites.layout import sampled_identity
from mech_pipeline.exchange.suites.layouts import LAYOUTS
from mech_pipeline.spec.fingerprint import file_sha256
from mech_pipeline.spec.imported import Imported
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.spec.training import Checkpoints

_FAMILIES = ("gpt2", "gpt_neox", "llama", "olmo2", "nanochat")
_USUAL_ACTIVATION = {"gpt_neox": "gelu", "nanochat": "relu2"}
_ACTIVATIONS = {"swish": "silu", "gelu_python": "gelu", "gelu_fast": "gelu_new", "gelu_pytorch_tanh": "gelu_new"}


def described(spec: RunSpec, imported: Imported) -> RunSpec:
    """The run with its revisions, its model, and as many steps as the last revision has.

    Raises:
        MechError: there is nothing there, it is of an architecture that is none of ours, or the spec says another.
    """
    layout = LAYOUTS[imported.layout]
    found = tuple((each.step, each.name, each.identity) for each in layout.revisions(imported))
    model = _model(spec, imported, layout.config(imported, found[0][1]))
    steps = tuple(step for step, _, _ in found)
    last = max(steps[-1], 1)
    batches, batch = _batches(spec, imported, model, steps)
    if imported.moments == "reconstruct":
        _check_from_zero(spec, imported, steps, *batches.get("updates", (0, 0)))
    return spec.model_copy(
        update={
            "imported": imported.model_copy(update={"found": found, **batches}).at(spec.home),
            "model": model,
            "training": spec.training.model_copy(update={"steps": last, "batch": batch}),
            "checkpoints": Checkpoints(every=last, extra=steps),
        }
    )


def _check_from_zero(spec: RunSpec, imported: Imported, steps: tuple[int, ...], first: int, end: int) -> None:
    """Moments are known at update 0 alone, and everywhere else by a replay from there.

    Raises:
        MechError: that replay lacks its beginning, or batches.
    """
    if steps[0] != 0 or first != 0 or end < steps[-1]:
        raise MechError(
            f"imported.moments of run {spec.run} are to be reconstructed, which needs revision 0 and the batches of every update "
            f"up to {steps[-1]}; {imported.place} begins at {steps[0]}, and imported.batches tells updates {first} to {end}",
            "name revisions that the batches reach in imported.steps, 0 among them, or leave `moments` out",
        )


def _batches(spec: RunSpec, imported: Imported, model: Model, steps: tuple[int, ...]) -> tuple[dict[str, Any], int]:
    """What is to be said of the batches, and how many examples each has."""
    if imported.batches is None:
        return {}, spec.training.batch
    if spec.optimizer.schedule != "constant" and spec.optimizer.horizon is None:
        raise MechError(
            f"optimizer.schedule of run {spec.run} is {spec.optimizer.schedule}, and where it ended is not known",
            "set optimizer.horizon to that update, or give optimizer.rates",
        )
    if imported.gives_tokens:
        return _given(spec, spec.home / imported.batches, model, steps), spec.training.batch
    from mech_pipeline.data.listed_order import read_batches  # polars, which others need not load

    path = spec.home / imported.batches
    frame = read_batches(path, spec.run)
    first, last = int(frame["update_step"][0]), int(frame["update_step"][-1])
    said = {"batches_sha256": file_sha256(path), "updates": (first, last + 1)}
    return said, int(frame["position"][-1]) + 1


def _given(spec: RunSpec, path: Path, model: Model, steps: tuple[int, ...]) -> dict[str, Any]:
    """Of a file with the tokens themselves: the updates between the first revision and the last that it reaches."""
    from mech_pipeline.data.token_file import rows_of_file  # tokenizers, which others need not load

    assert model.vocabulary is not None, "a suite's model says how many rows it has"
    reached = len(rows_of_file(path, spec.data.context, model.vocabulary)) // spec.training.batch
    end = max((step for step in steps if step <= reached), default=0)
    if end <= steps[0]:
        raise MechError(
            f"{path} has {reached} batches of {spec.training.batch}, which reach no second revision ({steps[0]}, {steps[1:2]})",
            "set training.batch to the examples of an update (Pythia: 1024), or fetch more of the file",
        )
    return {"batches_sha256": sampled_identity([path], str(path)), "updates": (steps[0], end)}


def _model(spec: RunSpec, imported: Imported, content: bytes) -> Model:
    try:
        config = json.loads(content)
        config.pop("reorder_and_upcast_attn", None)  # CRFM's: where everything is fp32, another order of roundings
        family = config.get("model_type")
    except (ValueError, AttributeError) as error:
        raise MechError(
            f"config.json of {imported.place} cannot be read: {str(error)[:200]}", "fetch it again"
        ) from error
    fields = model_fields(config, family, imported.place)
    written = spec.model.model_dump(exclude_unset=True)
    for name, value in written.items():
        if name in fields and fields[name] != value:
            raise MechError(
                f"model.{name} of run {spec.run} is {value}, and {fields[name]} in config.json of {imported.place}",
                "leave `model` out: it is read from there",
            )
    try:
        return Model.model_validate(fields | {"config": json.dumps(config, sort_keys=True)}).at(spec.home)
    except ValidationError as error:
        said = f"config.json of {imported.place} is of a model that is not built here: {error.errors()[0]['msg']}"
        raise MechError(said, "choose another suite") from error


def model_fields(config: dict[str, Any], family: object, place: str) -> dict[str, Any]:
    """A configuration of `transformers` as fields of `model`.

    Raises:
        MechError: the architecture is none of ours, or a field is missing.
    """
    if family not in _FAMILIES:
        raise MechError(
            f"{place} holds a model of type {family!r}, which is none of {', '.join(_FAMILIES)}",
            "only these architectures are built here",
        )
    try:
        return _of_gpt2(config) if family == "gpt2" else _of_others(config, str(family))
    except KeyError as error:
        raise MechError(f"config.json of {place} has no {error.args[0]}", "fetch the revision again") from error


def _of_gpt2(config: dict[str, Any]) -> dict[str, Any]:
    activation = config.get("activation_function", "gelu_new")
    return {
        "family": "gpt2",
        "layers": config["n_layer"],
        "heads": config["n_head"],
        "d_model": config["n_embd"],
        "d_mlp": config.get("n_inner") or 4 * config["n_embd"],
        "activation": _ACTIVATIONS.get(activation, activation),
        "vocabulary": config["vocab_size"],
    }


def _of_others(config: dict[str, Any], family: str) -> dict[str, Any]:
    activation = config.get("hidden_act", _USUAL_ACTIVATION.get(family, "silu"))
    fields = {
        "family": family,
        "layers": config["num_hidden_layers"],
        "heads": config["num_attention_heads"],
        "d_model": config["hidden_size"],
        "d_mlp": config["intermediate_size"],
        "activation": _ACTIVATIONS.get(activation, activation),
        "vocabulary": config["vocab_size"],
    }
    if family == "gpt_neox":
        rope = config.get("rope_parameters") or {}
        return fields | {"rotary_share": rope.get("partial_rotary_factor", config.get("rotary_pct", 0.25))}
    heads = config.get("num_key_value_heads") or fields["heads"]
    fields |= {"kv_heads": heads} if heads != fields["heads"] else {}
    return fields | ({"d_head": config["head_dim"]} if config.get("head_dim") and family == "llama" else {})
