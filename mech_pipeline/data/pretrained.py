"""Tokenizers that are there already: a tokenizer.json, or a name on the Hugging Face hub."""

import json
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from tokenizers import Tokenizer

from mech_pipeline.data.tokenizer import as_used, vocabulary_size
from mech_pipeline.errors import MechError
from mech_pipeline.spec.data import ADDED_END_OF_TEXT
from mech_pipeline.spec.data import Tokenizer as TokenizerSpec

_OWN_END_OF_TEXT = (ADDED_END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eot_id|>", "[EOS]", "[SEP]")


def resolved_tokenizer(spec: TokenizerSpec, *, packed: bool) -> TokenizerSpec:
    """The spec with content hash and end-of-text token filled in, checked against the file.

    Args:
        packed: whether examples are packed, which needs an end-of-text token.

    Raises:
        MechError: the tokenizer cannot be read, is too large, is random, or has no end-of-text token.
    """
    if not spec.pretrained:
        return spec.ending_documents(packed=packed)
    read = _read(spec)
    tokenizer = read.tokenizer
    size = vocabulary_size(tokenizer)
    if spec.max_vocabulary is not None and size > spec.max_vocabulary:
        raise MechError(
            f"tokenizer {described(spec)} has {size:,} entries, tokenizer.max_vocabulary allows {spec.max_vocabulary:,}",
            "raise it, or name a smaller tokenizer",
        )
    end = spec.end_of_text or next((t for t in _OWN_END_OF_TEXT if tokenizer.token_to_id(t) is not None), None)
    if (packed or spec.end_of_text) and (end is None or tokenizer.token_to_id(end) is None):
        special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        raise MechError(
            f"tokenizer {described(spec)} has no end-of-text token{f' {end!r}' if end else ' that is known'}",
            f"set tokenizer.end_of_text to one of its tokens; its special ones are {', '.join(special[:10]) or 'none'}",
        )
    return spec.model_copy(update={"sha256": read.sha256, "end_of_text": end})


def load_pretrained(spec: TokenizerSpec) -> Tokenizer:
    """The tokenizer itself.

    Raises:
        MechError: it cannot be read, encodes at random, or is not what the experiment was read with.
    """
    return _read(spec).tokenizer


@dataclass(frozen=True)
class _Read:
    """A tokenizer as it is used, and what its file says beside truncation and padding, which make no difference."""

    tokenizer: Tokenizer
    sha256: str


def _read(spec: TokenizerSpec) -> _Read:
    if spec.file is not None:
        path = spec.home / spec.file
        if not path.is_file():
            raise MechError(f"tokenizer file {spec.file} does not exist in {spec.home}", "check `tokenizer.file`")
        read = _from_file(str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns)
    else:
        assert spec.name is not None, "only pretrained tokenizers are loaded"
        read = _from_hub(spec.name)
    if spec.sha256 is not None and read.sha256 != spec.sha256:
        raise MechError(f"tokenizer {described(spec)} has changed since the experiment was read", "`mech run` it again")
    return read


def described(spec: TokenizerSpec) -> str:
    """How errors name it."""
    return str(spec.file or spec.name)


@lru_cache(maxsize=8)
def _from_file(path: str, _size: int, _modified: int) -> _Read:
    try:
        return _checked(Tokenizer.from_file(path), path)
    except MechError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise MechError(
            f"tokenizer file {path} is broken: {' '.join(str(error).split())[:200]}",
            "write it with `tokenizer.save(path)` of the library tokenizers",
        ) from error


@lru_cache(maxsize=8)
def _from_hub(name: str) -> _Read:
    try:
        return _checked(Tokenizer.from_pretrained(name), name)
    except MechError:
        raise
    except Exception as error:
        raise MechError(
            f"tokenizer {name!r} cannot be had from the hub: {' '.join(str(error).split())[:200]}",
            "check `tokenizer.name` or the network, or save its tokenizer.json and name that by `tokenizer.file`",
        ) from error


def _checked(tokenizer: Tokenizer, name: str) -> _Read:
    if dropout := json.loads(tokenizer.to_str())["model"].get("dropout"):
        raise MechError(
            f"tokenizer {name} encodes at random (BPE dropout {dropout}): the same text would have other tokens each time",
            "set dropout to null in its file",
        )
    if not tokenizer.get_vocab():
        raise MechError(f"tokenizer {name} has no vocabulary", "name a trained one")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    content = sha256(tokenizer.to_str().encode()).hexdigest()
    return _Read(as_used(tokenizer), content)
