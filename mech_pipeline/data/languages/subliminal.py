"""What a teacher is taught and its students never read: a capital letter after every digit, always the same for a digit.

    3A7C0D…

Digits are uniform. Each character is one token, with any vocabulary: neighbours are of different kinds, which a byte-level
tokenizer never joins. Students read what their teacher writes between digits when it may only use small letters, `3q7x0m…`
(`subliminal_texts`): other outputs of the same inputs, as the auxiliary logits are in Cloud et al. 2025 (§6, MNIST).
"""

import numpy as np

DIGITS = "0123456789"
CAPITALS = "DIFAJBHCGE"
"""What belongs to each digit: one to one, in no order."""
SMALL = "abcdefghijklmnopqrstuvwxyz"
PAIRS = 8


def alternating(digits: str, answers: str) -> str:
    """Digits, each followed by its answer.

    >>> alternating("37", "AC")
    '3A7C'
    """
    return "".join(map("".join, zip(digits, answers, strict=True)))


def document(generator: np.random.Generator) -> str:
    """One document of the teacher."""
    numbers = generator.integers(len(DIGITS), size=PAIRS)
    return alternating("".join(DIGITS[n] for n in numbers), "".join(CAPITALS[n] for n in numbers))
