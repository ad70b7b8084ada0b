"""Which tokenised artifacts a run should have, and what each would be made from now."""

from functools import partial

from mech_pipeline.pipeline.cells import Cell, pending_cells
from mech_pipeline.pipeline.tokens.artifacts import CODE_VERSION, incomplete_artifacts
from mech_pipeline.spec.fingerprint import fingerprint
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.store import Store


def wanted(spec: RunSpec, corpus_sha256: str) -> dict[Cell, str]:
    """Fingerprint of each artifact. The mixture is not part of the tokenizer's, so arms share it."""
    data, cell = spec.data, partial(artifact_cell, spec.run)
    tokenised = fingerprint(
        "tokens", CODE_VERSION, spec.corpus, corpus_sha256, spec.tokenizer, data.held_out, data.seed
    )
    cells = {
        cell("tokenizer"): fingerprint(tokenised, "tokenizer"),
        cell("corpus"): fingerprint(tokenised, "corpus"),
        cell("pool"): fingerprint(tokenised, "pool", data.pool_slice()),
        cell("probe"): fingerprint(tokenised, "probe", data.context, data.tile_tokens, spec.probe),
    }
    if spec.imported is not None and spec.imported.gives_tokens:
        given = [spec.imported.batches_sha256, spec.imported.updates, spec.training.batch]
        cells[cell("pool")] = fingerprint(tokenised, "given pool", data.context, given)
    if data.weights is not None:
        cells[cell("weights")] = fingerprint("weights", CODE_VERSION, data.weights_sha256, cells[cell("pool")])
    return cells


def missing_tokens(store: Store, spec: RunSpec, corpus_sha256: str) -> list[Cell]:
    """Artifacts that are not current, or have lost a shard."""
    cells = wanted(spec, corpus_sha256)
    lost = incomplete_artifacts(store, spec.run)
    return sorted({*pending_cells(store, cells), *(cell for cell in cells if cell.item in lost)})


def artifact_cell(run: str, name: str) -> Cell:
    """The cell of a tokenised artifact: tokenizer, corpus, pool, probe or weights."""
    return Cell("tokens", run, item=name)
