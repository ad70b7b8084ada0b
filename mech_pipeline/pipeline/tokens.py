"""Tokens: corpus → tokenizer → token shard → pool of examples and probe, all content-addressed and shared by runs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from tokenizers import Tokenizer
from torch import Tensor

from mech_pipeline.data import corpora
from mech_pipeline.data import examples as drawing
from mech_pipeline.data.corpora import Document
from mech_pipeline.data.examples import Examples
from mech_pipeline.data.tokenizer import TokenisedCorpus, token_lengths, tokenise, train_tokenizer
from mech_pipeline.errors import MechError
from mech_pipeline.mechanisms.probe import Probe, Sequences
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.store.blobs import Blob
from mech_pipeline.store.catalog import connect
from mech_pipeline.store.currency import Cell, outdated, stored_versions
from mech_pipeline.store.store import Store

CODE_VERSION = "1"
_AGAIN = "`mech verify --repair`, then `mech run` the experiment: tokens are made again, nothing else"
ARTIFACTS = ("tokenizer", "corpus", "pool", "probe")


@dataclass(frozen=True)
class Tokens:
    """What training and analysis read.

    Attributes:
        pool: token ids of all training examples.
        example_ids: their ids.
    """

    pool: Int[Tensor, "example token"]
    example_ids: np.ndarray
    probe: Probe
    vocabulary: int


def wanted(spec: RunSpec, corpus_sha256: str) -> dict[Cell, str]:
    """Fingerprint of each artifact. The mixture is not part of the tokenizer's, so arms share it."""
    data = spec.data
    tokenised = fingerprint(
        "tokens", CODE_VERSION, spec.corpus, corpus_sha256, spec.tokenizer, data.held_out, data.seed
    )
    return {
        (-1, "tokenizer"): fingerprint(tokenised, "tokenizer"),
        (-1, "corpus"): fingerprint(tokenised, "corpus"),
        (-1, "pool"): fingerprint(tokenised, "pool", data),
        (-1, "probe"): fingerprint(tokenised, "probe", data.context, data.tile_tokens, spec.probe),
    }


def prepare_tokens(
    store: Store, spec: RunSpec, documents: list[Document], emit: Callable[[str], None] = lambda line: None
) -> int:
    """Makes what is missing of a run's tokens; returns how many artifacts were not current.

    Artifacts that another run of the store has already are shared, not made again.
    """
    sha256 = corpora.corpus_sha256(documents)
    fingerprints = wanted(spec, sha256)
    missing = outdated(stored_versions(store, "tokens", spec.run), fingerprints)
    if not missing:
        return 0
    shared = _shared(store, list(fingerprints.values()))
    made: dict[str, tuple[Blob, int]] = {}
    if any(fingerprints[cell] not in shared for cell in missing):
        kept = {item: shared[value][0] for (_, item), value in fingerprints.items() if value in shared}
        made = _make(store, spec, documents, kept, emit)
    for cell in missing:
        blob, count = made[cell[1]] if cell[1] in made else shared[fingerprints[cell]]
        store.write(
            "tokens",
            {
                "run": [spec.run],
                "artifact": [cell[1]],
                "rows": [count],
                "uri": [blob.uri],
                "bytes": [blob.bytes],
                "sha256": [blob.sha256],
                "input_fingerprint": [fingerprints[cell]],
                "data_version": [blob.sha256],
            },
            replace={"run": [spec.run], "artifact": [cell[1]]},
            code_version=CODE_VERSION,
        )
    return len(missing)


def load_tokens(store: Store, spec: RunSpec) -> Tokens:
    """Pool and probe of a run.

    Raises:
        MechError: they were not made, or a file is missing or corrupt.
    """
    arrays = {name: load_arrays(_read(store, spec.run, name)) for name in ("pool", "probe")}
    probe = arrays["probe"]

    def sequences(kind: str) -> Sequences:
        tokens, period = probe[f"{kind}.tokens"], probe[f"{kind}.period"]
        return Sequences(torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(period.astype(np.int64)))

    return Tokens(
        pool=torch.from_numpy(arrays["pool"]["tokens"].astype(np.int64)),
        example_ids=np.array([f"{number:016x}" for number in arrays["pool"]["example_id"]]),
        probe=Probe(sequences("tiled"), sequences("random")),
        vocabulary=int(probe["vocabulary"][0]),
    )


def _read(store: Store, run: str, artifact: str) -> bytes:
    with connect(store.root, ["tokens"]) as connection:
        rows = connection.execute(
            "select uri, bytes, sha256 from tokens where run = ? and artifact = ?", [run, artifact]
        ).fetchall()
    if not rows:
        raise MechError(f"run {run} has no {artifact}", "materialize `tokens` for it, or `mech run` its experiment")
    return store.get_blob(Blob(*rows[0]), f"{artifact} of run {run}", _AGAIN)


def _shared(store: Store, fingerprints: list[str]) -> dict[str, tuple[Blob, int]]:
    with connect(store.root, ["tokens"]) as connection:
        rows = connection.execute(
            "select input_fingerprint, uri, bytes, sha256, rows from tokens where list_contains(?, input_fingerprint)",
            [fingerprints],
        ).fetchall()
    found = {row[0]: (Blob(*row[1:4]), row[4]) for row in rows}
    return {made_from: kept for made_from, kept in found.items() if store.has_blob(kept[0])}


def _kept_tokenisation(
    store: Store, documents: list[Document], kept: dict[str, Blob]
) -> tuple[Tokenizer, TokenisedCorpus, NDArray[np.bool_]]:
    """Tokenizer, tokenised corpus and held-out documents as an earlier run made them."""
    tokenizer = Tokenizer.from_str(store.get_blob(kept["tokenizer"], "tokenizer", _AGAIN).decode())
    arrays = load_arrays(store.get_blob(kept["corpus"], "tokenised corpus", _AGAIN))
    corpus = TokenisedCorpus(documents, arrays["tokens"], arrays["starts"], token_lengths(tokenizer))
    return tokenizer, corpus, arrays["held_out"].astype(bool)


def _make(
    store: Store, spec: RunSpec, documents: list[Document], kept: dict[str, Blob], emit: Callable[[str], None]
) -> dict[str, tuple[Blob, int]]:
    """All four artifacts of a run, and the rows of `examples`; `kept` are artifacts that are there already."""
    data, seed = spec.data, spec.data.seed
    if {"tokenizer", "corpus"} <= set(kept):
        tokenizer, corpus, held_out = _kept_tokenisation(store, documents, kept)
    else:
        emit(
            f"tokens: {len(documents)} documents, {sum(len(d.text) for d in documents) / 1e6:.1f} MB; training the tokenizer"
        )
        tokenizer, corpus, held_out = _tokenise(spec, documents)
    tokenizer_json = tokenizer.to_str().encode()
    vocabulary = tokenizer.get_vocab_size()
    emit(f"tokens: {len(corpus.tokens):,} tokens, vocabulary {vocabulary}; drawing {data.examples:,} examples")
    # The tokenizer's own hash would change with its library's JSON layout; the vocabulary names the ids.
    identity = fingerprint("tokenizer", sorted(tokenizer.get_vocab().items()))
    pool, ids = drawing.draw_pool(
        corpus,
        ~held_out,
        data.examples,
        data.context,
        data.tiled,
        data.tile_tokens,
        identity,
        numpy_generator(seed, "pool"),
    )
    generator = numpy_generator(spec.probe.seed, "probe")
    tiled = drawing.draw_tiled(corpus, held_out, spec.probe.tiled_examples, data.context, data.tile_tokens, generator)
    random = drawing.draw_random_repeats(vocabulary, spec.probe.random_examples, data.context, generator)
    _write_examples(store, corpus, tokenizer, pool, ids)
    contents: dict[str, tuple[str, bytes, int]] = {
        "tokenizer": ("tokenizer.json", tokenizer_json, vocabulary),
        "corpus": (
            "corpus.safetensors",
            save_arrays(
                {
                    "tokens": corpus.tokens,
                    "starts": corpus.starts,
                    "held_out": held_out.astype(np.uint8),
                }
            ),
            len(documents),
        ),
        "pool": (
            "pool.safetensors",
            save_arrays(
                {
                    "tokens": pool.tokens,
                    "period": pool.period,
                    "document": pool.document,
                    "start": pool.start,
                    "example_id": np.array([int(name, 16) for name in ids], dtype=np.uint64),
                }
            ),
            len(pool),
        ),
        "probe": (
            "probe.safetensors",
            save_arrays(
                {
                    "tiled.tokens": tiled.tokens,
                    "tiled.period": tiled.period,
                    "random.tokens": random.tokens,
                    "random.period": random.period,
                    "vocabulary": np.array([vocabulary], dtype=np.int64),
                }
            ),
            len(tiled) + len(random),
        ),
    }
    return {
        artifact: (store.put_blob("tokens", name, content), count)
        for artifact, (name, content, count) in contents.items()
        if artifact not in kept
    }


def _tokenise(spec: RunSpec, documents: list[Document]) -> tuple[Tokenizer, TokenisedCorpus, NDArray[np.bool_]]:
    """Tokenizer, tokenised corpus, held-out documents. The tokenizer sees all documents: it is no part of the claim."""
    tokenizer = train_tokenizer(documents, spec.tokenizer.vocabulary)
    corpus = tokenise(tokenizer, documents)
    held_out = drawing.split_documents(corpus, spec.data.held_out, numpy_generator(spec.data.seed, "held_out"))
    if held_out.all():
        raise MechError(
            f"the corpus has too few documents ({len(documents)}) to keep {spec.data.held_out:.0%} for probes",
            "split the text into more files, or lower data.held_out",
        )
    return tokenizer, corpus, held_out


def _write_examples(
    store: Store, corpus: TokenisedCorpus, tokenizer: Tokenizer, pool: Examples, ids: list[str]
) -> None:
    documents = [corpus.documents[index] for index in pool.document]
    encoded = {index: corpus.documents[index].text.encode() for index in set(pool.document.tolist())}
    offsets = [corpus.byte_offset(int(d), int(s)) for d, s in zip(pool.document, pool.start, strict=True)]
    lines = [encoded[int(d)].count(b"\n", 0, offset) + 1 for d, offset in zip(pool.document, offsets, strict=True)]
    rows = pool.tokens.tolist()
    snippets = tokenizer.decode_batch([row[:period] for row, period in zip(rows, pool.period, strict=True)])
    store.insert_new(
        "examples",
        {
            "example_id": ids,
            "kind": ["tiled" if period else "plain" for period in pool.period],
            "source": [d.source for d in documents],
            "document": [d.name for d in documents],
            "offset": offsets,
            "line": lines,
            "period": pool.period,
            "n_tokens": [pool.tokens.shape[1]] * len(ids),
            "text": tokenizer.decode_batch(rows),
            "repeat_at": [len(s) if period else 0 for s, period in zip(snippets, pool.period, strict=True)],
        },
    )
