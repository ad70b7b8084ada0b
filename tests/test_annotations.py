"""Annotations are checked while tests run: shapes with their letters, plain types, what is given and what comes back."""

import dataclasses

import jaxtyping
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
from torch import Tensor

from mech_pipeline.pipeline.cells import Cell
from mech_pipeline.pipeline.work import consecutive
from mech_pipeline.training.flat import flatten


def hooked(made):
    """As the import hook decorates it."""
    return jaxtyping.jaxtyped(typechecker=beartype)(made)


@hooked
def outer(
    left: Float[Tensor, "row inner"], right: Float[Tensor, "inner column"], wrong: bool = False
) -> Float[Tensor, "row column"]:
    return (left @ right).T if wrong else left @ right


@hooked
def rows(of: Float[Tensor, "row column"]) -> list[Float[Tensor, " column"]]:
    def doubled(row: int) -> int:
        return 2 * row

    return [of[row] for row in range(doubled(len(of)) // 2)]


@hooked
def promised(value: object) -> int:
    return value  # a lie, on purpose


def test_shapes_are_checked_across_arguments_and_result():
    assert outer(torch.zeros(2, 3), torch.zeros(3, 5)).shape == (2, 5)
    assert len(rows(torch.zeros(2, 3))) == 2
    with pytest.raises(BeartypeCallHintViolation):
        outer(torch.zeros(2, 3), torch.zeros(4, 5))
    with pytest.raises(BeartypeCallHintViolation):
        outer(torch.zeros(2, 3), torch.zeros(3, 5), wrong=True)
    with pytest.raises(BeartypeCallHintViolation):
        outer(torch.zeros(2, 3, dtype=torch.int64), torch.zeros(3, 5))


def test_every_call_has_letters_of_its_own():
    for size in (2, 3):
        assert len(rows(torch.zeros(size, size + 1))) == size


def test_plain_types_of_results_and_fields_are_checked():
    @dataclasses.dataclass
    class Named:
        name: str

    hooked(Named)
    assert Named("a").name == "a"
    with pytest.raises(BeartypeCallHintViolation):
        Named(1)
    with pytest.raises(BeartypeCallHintViolation):
        promised("anything")


def test_the_package_is_checked():
    assert consecutive([0, 10, 30], [0, 10, 20, 30]) == [[0, 10], [30]]
    with pytest.raises(BeartypeCallHintViolation):
        consecutive("steps", [1, 2])
    with pytest.raises(BeartypeCallHintViolation):
        Cell("checkpoints", run=3)
    with pytest.raises(BeartypeCallHintViolation):
        flatten(["parameter"], [torch.zeros(2)])
