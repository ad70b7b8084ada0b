"""Which attention kernel computes: the one of `kernels.py`, which has a pattern and second derivatives, or PyTorch's fused one."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

fused: ContextVar[bool] = ContextVar("fused", default=False)
"""Whether the fused kernel is asked for in this thread."""
MATH_ATTENTION = "mech_math"
"""Name under which `transformers` finds the attention of `kernels.py`."""


@contextmanager
def fused_attention(wanted: bool) -> Iterator[None]:
    """While the block runs, attention is computed by PyTorch's fused kernel, without a pattern."""
    token = fused.set(wanted)
    try:
        yield
    finally:
        fused.reset(token)
