"""Out of memory, named: which micro-batch did not fit, and the largest that would."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from traceback import clear_frames

import torch

from mech_pipeline.errors import MechError

_CPU_MESSAGES = ("can't allocate memory", "not enough memory")


@contextmanager
def named_out_of_memory(run: str, examples: int, fits: Callable[[int], bool]) -> Iterator[None]:
    """Turns running out of memory into one sentence with a way out.

    Args:
        examples: size of the micro-batch that is computed in the block.
        fits: tries a forward and backward of so many examples.

    Raises:
        MechError: memory ran out.
    """
    try:
        yield
        return
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
        clear_frames(error.__traceback__)  # they keep the tensors of the failed attempt alive
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    largest = _largest(examples, fits)
    if largest == 0:
        raise MechError(f"{run}: out of memory even with one example at a time ({reason})", "train a smaller model")
    raise MechError(
        f"{run}: out of memory with {examples} examples per backward ({reason}); {largest} would fit",
        f"set training.micro_batches to at least {-(-examples // largest)} times what it is (this changes the bits)",
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _CPU_MESSAGES)


def _largest(examples: int, fits: Callable[[int], bool]) -> int:
    """The largest of examples/2, examples/4, … that fits; 0 if none does."""
    size = examples // 2
    while size and not fits(size):
        size //= 2
    return size
