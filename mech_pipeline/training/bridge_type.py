"""The type of a TransformerBridge, for signatures: importing TransformerLens itself takes seconds.

Type checkers see the class; while a program runs it is the module class that a bridge is derived from.
"""

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from transformer_lens.model_bridge.bridge import TransformerBridge
else:
    TransformerBridge = nn.Module

__all__ = ["TransformerBridge"]
