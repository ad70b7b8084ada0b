"""Corpus → tokenizer → token shards and held-out documents. Texts and tokens pass through; neither is kept in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from tokenizers import Tokenizer

from mech_pipeline.data.documents import Document, corpus_bytes, document_parts
from mech_pipeline.data.examples import split_documents
from mech_pipeline.data.pretrained import load_pretrained
from mech_pipeline.data.sharded import TokenArray
from mech_pipeline.data.tokenised import TokenisedCorpus, encode_documents, pieces
from mech_pipeline.data.tokenizer import token_dtype, token_lengths, train_tokenizer, vocabulary_size
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline.tokens import artifacts
from mech_pipeline.pipeline.tokens.artifacts import Artifact, ShardWriter
from mech_pipeline.progress import Emit, Progress
from mech_pipeline.spec.data import Data
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.store.store import Store

_MB = 1_000_000


@dataclass(frozen=True)
class HeldTokens:
    """The tokenised corpus with its held-out documents, as it lies in the store."""

    artifact: Artifact
    corpus: TokenisedCorpus
    held_out: NDArray[np.bool_]


def make_tokenizer(spec: RunSpec, documents: Sequence[Document]) -> Tokenizer:
    """Trains or loads the tokenizer. A trained one sees all documents: it is no part of the claim."""
    if spec.tokenizer.pretrained:
        return load_pretrained(spec.tokenizer)
    return train_tokenizer(documents, spec.tokenizer.vocabulary, spec.tokenizer.end_of_text)


def tokenise_corpus(
    store: Store,
    spec: RunSpec,
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    made_from: str,
    emit: Emit,
) -> HeldTokens:
    """Encodes all documents into one file, or into shards where they do not fit.

    Raises:
        MechError: too few documents to keep some for probes, or the tokenizer finds no token.
    """
    length = artifacts.SHARD_BYTES // np.dtype(token_dtype(vocabulary_size(tokenizer))).itemsize
    writer = ShardWriter(store, spec.run, "corpus", made_from)
    lengths: list[int] = []
    waiting: NDArray | None = None
    for piece in pieces(_encoded(spec, tokenizer, documents, lengths, emit), length):
        if waiting is not None:
            writer.add({"tokens": waiting}, len(waiting))
        waiting = piece
    if waiting is None:
        raise MechError("the tokenizer finds no token in the corpus", "check `tokenizer` and `corpus`")
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    corpus = TokenisedCorpus(documents, waiting, starts, token_lengths(tokenizer))
    held_out = held_out_documents(corpus, spec.data, list(spec.corpus.parts))
    index: dict[str, NDArray] = {"starts": starts, "held_out": held_out.astype(np.uint8)}
    if not writer.shards:
        content = save_arrays({"tokens": waiting, **index})
        artifact = Artifact(store.put_blob("tokens", "corpus.safetensors", content), len(documents))
        return HeldTokens(artifact, corpus, held_out)
    writer.add({"tokens": waiting}, len(waiting))
    return open_corpus(store, writer.finish(index, len(documents)), documents, tokenizer)


def open_corpus(store: Store, artifact: Artifact, documents: Sequence[Document], tokenizer: Tokenizer) -> HeldTokens:
    """A tokenised corpus as it was made earlier.

    Raises:
        MechError: a file is missing or damaged.
    """
    arrays = load_arrays(store.get_blob(artifact.blob, "tokenised corpus", artifacts.AGAIN))
    tokens: TokenArray = arrays["tokens"] if "tokens" in arrays else _shards(store, artifact)
    corpus = TokenisedCorpus(documents, tokens, arrays["starts"], token_lengths(tokenizer))
    return HeldTokens(artifact, corpus, arrays["held_out"].astype(bool))


def _shards(store: Store, artifact: Artifact) -> TokenArray:
    return artifacts.sharded(store, artifact, "the tokenised corpus")["tokens"]


def held_out_documents(corpus: TokenisedCorpus, data: Data, parts: Sequence[str]) -> NDArray[np.bool_]:
    """Which documents are kept for probes: a share of the whole corpus, or of each of its parts.

    Raises:
        MechError: nothing is left to train on.
    """
    if not parts:
        held_out = split_documents(corpus, data.held_out, numpy_generator(data.seed, "held_out"))
        _check_left("the corpus", held_out, data)
        return held_out
    codes = document_parts(corpus.documents, parts)
    held_out = np.zeros(len(codes), dtype=bool)
    for number, part in enumerate(parts):
        chosen = np.flatnonzero(codes == number)
        generator = numpy_generator(data.seed, f"held_out:{part}")
        held_out[chosen] = split_documents(corpus, data.held_out, generator, chosen)
        _check_left(f"part {part} of the corpus", held_out[chosen], data)
    return held_out


def _check_left(what: str, held_out: NDArray[np.bool_], data: Data) -> None:
    if held_out.all():
        raise MechError(
            f"{what} has too few documents ({len(held_out)}) to keep {data.held_out:.0%} for probes",
            "split the text into more files, or lower data.held_out",
        )


def _encoded(
    spec: RunSpec,
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    lengths: list[int],
    emit: Emit,
) -> Iterator[NDArray]:
    """Token ids of each document; their lengths are noted."""
    size = corpus_bytes(documents)
    progress = Progress(emit, f"tokenise {spec.run}", ceil(size / _MB), "MB")
    for ids in encode_documents(
        tokenizer, documents, lambda done: progress(ceil(size / _MB) if done >= size else done // _MB)
    ):
        lengths.append(len(ids))
        yield ids
