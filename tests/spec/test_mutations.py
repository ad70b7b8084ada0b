"""Every field of an experiment file, changed: what is accepted is what was written, and what is refused is one line."""

import copy
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from mech_pipeline.errors import MechError
from mech_pipeline.spec.experiment import Experiment, parse_experiment
from tests.support.tiny import MINIMAL

VALUES: list[Any] = [
    True, False, None, -1, 0, 1, 7, 2**40, 10**30, -(10**30), 0.5, -0.5, 1.0, 1e300, float("nan"), float("inf"),
    "", "2", "yes", "3e-3", "a", "\x00", "x" * 5000, b"x", [], [True], ["2"], [-1, 5], [[5, 1]], [10**30], {}, {"a": 1},
    {1: 2}, {"a": True}, {1, 2}, [[[[]]]], "all", ["all"],
]  # fmt: skip


def fields(model: type[BaseModel], path: tuple[str, ...] = ()):
    """Every field, with those of the stages inside."""
    for name, field in model.model_fields.items():
        yield (*path, field.alias or name)
        inner = [field.annotation, *get_args(field.annotation)]
        for kind in inner:
            if isinstance(kind, type) and issubclass(kind, BaseModel) and len(path) < 2:
                yield from fields(kind, (*path, field.alias or name))


FIELDS = [path for path in fields(Experiment) if path[0] != "arms"]
NEEDED = {("corpus",): {"generated": {"language": "dyck"}}, ("checkpoints", "adaptive"): {
    "mechanism": "induction_copy_advantage", "change": 1.0}}  # fmt: skip


def changed(path, value):
    content = copy.deepcopy(MINIMAL)
    at: dict[str, Any] = content
    for depth, name in enumerate(path[:-1]):
        before = at.get(name) if isinstance(at.get(name), dict) else copy.deepcopy(NEEDED.get(path[: depth + 1], {}))
        at[name] = before
        at = before
    at[path[-1]] = value
    return content


def same(found: Any, written: Any) -> bool:
    """Whether a value is the one that was written: lists may become tuples, whole numbers and `3e-3` the nearest float."""
    if isinstance(found, BaseModel) or isinstance(written, dict):
        return isinstance(written, dict | BaseModel)
    if isinstance(written, list | tuple):
        return isinstance(found, tuple) and len(found) == len(written) and all(map(same, found, written))
    if isinstance(found, float) and isinstance(written, str | int) and not isinstance(written, bool):
        return found == float(written)
    return isinstance(found, bool) == isinstance(written, bool) and found == written


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FIELDS), st.sampled_from(VALUES) | st.integers() | st.floats() | st.text(max_size=4))
def test_what_is_accepted_is_what_was_written(path, value):
    refused = None
    try:
        experiment = parse_experiment(changed(path, value))
    except MechError as error:
        refused = str(error)
    if refused is not None:
        assert "\n" not in refused
        assert len(refused) < 2000
        return
    found: Any = experiment
    for name in path:
        found = getattr(found, "begin" if name == "from" else name)
    assert same(found, value), f"{path}: {value!r} became {found!r}"
    for run in experiment.runs():
        assert len(run.checkpoint_steps()) < 2_000_000


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "layers"), True, "model.layers = True: true is yes or no, and a number is expected"),
        (
            ("model", "layers"),
            "2",
            "model.layers = '2': '2' is text, and a number is expected; write it without quotes",
        ),
        (("seeds",), [True], "seeds = .*true is yes or no, and a number is expected"),
        (("corpus", "python_stdlib"), 1, "1 is a number, and true or false is expected"),
        (("corpus", "python_stdlib"), "yes", "'yes' is text, and true or false is expected"),
        (("data", "part_shares"), {"a": True}, "data.part_shares.*true is yes or no"),
        (("experiment",), b"x", "it is a bytes, and text is expected"),
        (("training", "steps"), 10**30, "a number of 31 digits is too large"),
        (("training", "steps"), 10**9, "checkpoints: 40,000,000 are planned in 1,000,000,000 steps"),
        (("checkpoints", "extra"), [-1], "extra: there is no step -1"),
        (("checkpoints", "dense"), [[9, 3]], r"dense: a window is \[first, last\] step, .*got \[9, 3\]"),
    ],
)
def test_a_value_of_another_kind_is_named(path, value, message):
    with pytest.raises(MechError, match=message):
        parse_experiment(changed(path, value))
    assert parse_experiment(changed(("optimizer", "learning_rate"), "3e-3")).optimizer.learning_rate == 3e-3
