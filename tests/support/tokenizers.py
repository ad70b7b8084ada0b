"""Tokenizers that need no training."""

from tokenizers import Tokenizer, models, pre_tokenizers


def words(size=70_000, **added):
    """A tokenizer of whole words w0 … with more than 65,536 entries."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0} | {f"w{n}": n for n in range(1, size)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer
