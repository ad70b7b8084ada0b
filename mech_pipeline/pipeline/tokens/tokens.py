"""Tokens: corpus → tokenizer → token shards → pool of examples and probe, all content-addressed and shared by runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from tokenizers import Tokenizer
from torch import Tensor

from mech_pipeline.data import examples as drawing
from mech_pipeline.data.documents import Document, blank_documents, corpus_bytes, corpus_sha256
from mech_pipeline.data.drawing import DrawnPool, draw_pool
from mech_pipeline.data.example_weights import ExampleWeights, read_weights
from mech_pipeline.data.pool import Pool
from mech_pipeline.data.rearranged import Rearrangement
from mech_pipeline.data.token_file import pool_of_file
from mech_pipeline.data.tokenizer import open_tokenizer, tokenizer_identity, vocabulary_size
from mech_pipeline.mechanisms.probe import Probe, Sequences
from mech_pipeline.mechanisms.source import HeldOut, Origin
from mech_pipeline.pipeline.tokens.artifacts import (
    AGAIN,
    Artifact,
    read_artifact,
    shared_artifacts,
    write_artifact,
)
from mech_pipeline.pipeline.tokens.corpus import HeldTokens, make_tokenizer, open_corpus, tokenise_corpus
from mech_pipeline.pipeline.tokens.example_rows import write_examples
from mech_pipeline.pipeline.tokens.pool import StoredPool, open_pool, store_pool
from mech_pipeline.pipeline.tokens.wanted import missing_tokens, wanted
from mech_pipeline.progress import Emit
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.spec.seeds import numpy_generator
from mech_pipeline.store.store import Store


@dataclass(frozen=True)
class Tokens:
    """What training and analysis read.

    Attributes:
        pool: token ids of all training examples.
        stored: the pool's other columns.
        read_weights: of single examples, if there are any; where they are chosen, that is later than all else.
        read_rearrangement: of the order, if there is one; it is chosen as well.
    """

    pool: Pool
    stored: StoredPool
    probe: Probe
    vocabulary: int
    read_weights: Callable[[], ExampleWeights | None]
    read_rearrangement: Callable[[], Rearrangement | None]

    @cached_property
    def weights(self) -> ExampleWeights | None:
        """Weights of single examples, if there are any."""
        return self.read_weights()

    @cached_property
    def rearrangement(self) -> Rearrangement | None:
        """What is moved or replaced in the order, if anything is."""
        return self.read_rearrangement()

    @cached_property
    def example_ids(self) -> np.ndarray:
        """Ids of the pool's examples, as text; 64 bytes of memory each."""
        return np.array(drawing.id_names(_all(self.stored)))


def prepare_tokens(store: Store, spec: RunSpec, documents: Sequence[Document], emit: Emit = lambda line: None) -> int:
    """Makes what is missing of a run's tokens; returns how many artifacts were not current.

    Artifacts that another run of the store has already are shared, not made again.

    Raises:
        MechError: the corpus does not hold what is asked for, or the weights file is wrong.
    """
    sha256 = corpus_sha256(documents)
    missing = [str(cell.item) for cell in missing_tokens(store, spec, sha256)]
    if not missing:
        return 0
    made_from = {str(cell.item): value for cell, value in wanted(spec, sha256).items()}
    shared = shared_artifacts(store, made_from.values())
    found = {name: shared[value] for name, value in made_from.items() if value in shared}
    drawn = [name for name in missing if name != "weights"]
    if any(name not in found for name in drawn):
        found |= _Maker(store, spec, documents, made_from, found, emit).make()
    for name in drawn:
        write_artifact(store, spec.run, name, found[name], made_from[name])
    if "weights" in missing:
        artifact = found.get("weights") or _make_weights(store, spec)
        write_artifact(store, spec.run, "weights", artifact, made_from["weights"])
    return len(missing)


def load_tokens(store: Store, spec: RunSpec) -> Tokens:
    """Pool and probe of a run.

    Raises:
        MechError: they were not made, or a file is missing or corrupt.
    """
    probe = _arrays(store, spec.run, "probe")

    def sequences(kind: str) -> Sequences:
        return Sequences(_int64(probe[f"{kind}.tokens"]), _int64(probe[f"{kind}.period"]))

    stored, vocabulary = stored_pool(store, spec.run), int(probe["vocabulary"][0])
    origin = Origin(
        vocabulary, spec.probe.seed, lambda: stored_tokenizer(store, spec.run), lambda: _held_out(store, spec.run)
    )
    return Tokens(
        pool=Pool(stored.tokens),
        stored=stored,
        probe=Probe(sequences("tiled"), sequences("random"), origin),
        vocabulary=vocabulary,
        read_weights=lambda: ExampleWeights(**_arrays(store, spec.run, "weights")) if spec.weighted else None,
        read_rearrangement=lambda: _rearrangement(store, spec.run) if spec.rearranged else None,
    )


def _rearrangement(store: Store, run: str) -> Rearrangement:
    arrays = _arrays(store, run, "order")
    first, last, earlier = (int(arrays[name][0]) for name in ("first", "last", "earlier"))
    return Rearrangement(arrays["example"], arrays["instead"], first, last, earlier)


def _int64(array: NDArray) -> Int[Tensor, "..."]:
    return torch.from_numpy(array.astype(np.int64))


def _given_pool(spec: RunSpec, tokenizer_sha256: str) -> DrawnPool:
    """The examples of a run from outside, as its token file has them."""
    imported = spec.imported
    assert imported is not None, "asked for only of such a run"
    assert imported.batches is not None, "asked for only where there is one"
    assert spec.model.vocabulary is not None, "a suite's model says how many rows it has"
    first, end = (update * spec.training.batch for update in imported.updates)
    path = spec.home / imported.batches
    return pool_of_file(path, spec.data.context, spec.model.vocabulary, first, end - first, tokenizer_sha256)


def _arrays(store: Store, run: str, name: str) -> dict[str, NDArray]:
    return load_arrays(store.get_blob(read_artifact(store, run, name).blob, f"{name} of run {run}", AGAIN))


def stored_tokenizer(store: Store, run: str) -> Tokenizer:
    """The tokenizer of a run."""
    blob = read_artifact(store, run, "tokenizer").blob
    return open_tokenizer(store.get_blob(blob, f"tokenizer of run {run}", AGAIN).decode())


def _held_out(store: Store, run: str) -> HeldOut:
    held = open_corpus(store, read_artifact(store, run, "corpus"), (), stored_tokenizer(store, run))
    return HeldOut(held.corpus, held.held_out)


def stored_pool(store: Store, run: str) -> StoredPool:
    """The pool of a run, its tokens mapped from files where they are large."""
    return open_pool(store, read_artifact(store, run, "pool"), f"pool of run {run}")


def _all(pool: StoredPool) -> NDArray[np.uint64]:
    return pool.ids[np.arange(len(pool.ids))]


def _make_weights(store: Store, spec: RunSpec) -> Artifact:
    """The weights file with its ids turned into places in the pool."""
    name, sha256 = spec.data.weights, spec.data.weights_sha256
    assert name is not None, "asked for only if the spec names a file"
    assert sha256 is not None, "filled in when the experiment is read"
    weights = read_weights(name, sha256, _all(stored_pool(store, spec.run)), spec.home)
    content = save_arrays({k: getattr(weights, k) for k in ("example", "weight", "first", "last")})
    return Artifact(store.put_blob("tokens", "weights.safetensors", content), len(weights.example))


@dataclass(frozen=True)
class _Maker:
    """Makes the artifacts of a run that are not there, and the rows of `examples`.

    Attributes:
        made_from: fingerprint of each artifact.
        kept: artifacts that are there already.
    """

    store: Store
    spec: RunSpec
    documents: Sequence[Document]
    made_from: dict[str, str]
    kept: dict[str, Artifact]
    emit: Emit

    def make(self) -> dict[str, Artifact]:
        """The artifacts that were made."""
        tokenizer, held = self._tokenised()
        vocabulary, data = vocabulary_size(tokenizer), self.spec.data
        self.emit(
            f"tokens: {len(held.corpus.tokens):,} tokens, vocabulary {vocabulary}; drawing {data.examples:,} examples"
        )
        made = {
            "tokenizer": self._file("tokenizer.json", tokenizer.to_str().encode(), vocabulary),
            "corpus": held.artifact,
        }
        if "pool" not in self.kept:
            made["pool"] = self._pool(tokenizer, held, vocabulary)
        if "probe" not in self.kept:
            made["probe"] = self._probe(held, vocabulary)
        return {name: artifact for name, artifact in made.items() if name not in self.kept}

    def _tokenised(self) -> tuple[Tokenizer, HeldTokens]:
        """Tokenizer and tokenised corpus, as an earlier run made them where there is one."""
        if {"tokenizer", "corpus"} <= set(self.kept):
            tokenizer = open_tokenizer(self.store.get_blob(self.kept["tokenizer"].blob, "tokenizer", AGAIN).decode())
            return tokenizer, open_corpus(self.store, self.kept["corpus"], self.documents, tokenizer)
        size = corpus_bytes(self.documents) / 1e6
        doing = "loading" if self.spec.tokenizer.pretrained else "training"
        blank = f" ({n} blank ones left out)" if (n := blank_documents(self.documents)) else ""
        self.emit(f"tokens: {len(self.documents)} documents{blank}, {size:.1f} MB; {doing} the tokenizer")
        tokenizer = make_tokenizer(self.spec, self.documents)
        made_from = self.made_from["corpus"]
        return tokenizer, tokenise_corpus(self.store, self.spec, tokenizer, self.documents, made_from, self.emit)

    def _pool(self, tokenizer: Tokenizer, held: HeldTokens, vocabulary: int) -> Artifact:
        spec = self.spec
        end = None if spec.tokenizer.end_of_text is None else tokenizer.token_to_id(spec.tokenizer.end_of_text)
        identity, parts = tokenizer_identity(tokenizer), list(spec.corpus.parts)
        if spec.imported is not None and spec.imported.gives_tokens:
            drawn = _given_pool(spec, identity)
        else:
            drawn = draw_pool(held.corpus, ~held.held_out, spec.data, parts, identity, end)
        write_examples(self.store, held.corpus, tokenizer, drawn, self.emit)
        made_from = self.made_from["pool"]
        rows = max(vocabulary, spec.model.vocabulary or 0)
        return store_pool(self.store, spec.run, drawn, spec.data.context, rows, made_from)

    def _probe(self, held: HeldTokens, vocabulary: int) -> Artifact:
        data, probe = self.spec.data, self.spec.probe
        generator = numpy_generator(probe.seed, "probe")
        tiled = drawing.draw_tiled(
            held.corpus, held.held_out, probe.tiled_examples, data.context, data.tile_tokens, generator
        )
        random = drawing.draw_random_repeats(vocabulary, probe.random_examples, data.context, generator)
        arrays: dict[str, NDArray] = {
            "tiled.tokens": tiled.tokens,
            "tiled.period": tiled.period,
            "random.tokens": random.tokens,
            "random.period": random.period,
            "vocabulary": np.array([vocabulary], dtype=np.int64),
        }
        return self._file("probe.safetensors", save_arrays(arrays), len(tiled) + len(random))

    def _file(self, name: str, content: bytes, rows: int) -> Artifact:
        """A file of its own, unless it is kept."""
        kept = self.kept.get(name.split(".")[0])
        return kept or Artifact(self.store.put_blob("tokens", name, content), rows)
