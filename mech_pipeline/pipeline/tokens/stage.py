"""The stage `spec`: what a run is, and its tokens."""

from collections.abc import Sequence

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.pipeline.cells import Cell, pending_cells
from mech_pipeline.pipeline.run_row import describe_run, run_row_fingerprint
from mech_pipeline.pipeline.stage import Cells, Output, Scope, Stage, Told, View, always
from mech_pipeline.pipeline.tokens.artifacts import CODE_VERSION
from mech_pipeline.pipeline.tokens.wanted import missing_tokens, wanted


def _described(view: View) -> Cells:
    row = Cell("runs", view.spec.run)
    made_from = run_row_fingerprint(view.spec, view.corpus_sha256)
    return {row: made_from} | wanted(view.spec, view.corpus_sha256)


def _undescribed(view: View, cells: Cells) -> list[Cell]:
    row = {cell: made_from for cell, made_from in cells.items() if cell.table == "runs"}
    return pending_cells(view.store, row) + missing_tokens(view.store, view.spec, view.corpus_sha256)


def _describe(view: View, steps: Sequence[int], told: Told) -> int:
    from mech_pipeline.pipeline.tokens.probe_data import check_probe_data
    from mech_pipeline.pipeline.tokens.probe_rows import write_probe_sequences
    from mech_pipeline.pipeline.tokens.tokens import load_tokens, prepare_tokens

    describe_run(view.store, view.spec, view.corpus_sha256)
    made = prepare_tokens(view.store, view.spec, read_corpus(view.spec.corpus), told.emit)
    probe = load_tokens(view.store, view.spec).probe
    check_probe_data(view.spec, probe)
    write_probe_sequences(view.store, view.spec, probe)
    return made


SPEC = Stage(
    "spec",
    "Describes runs and makes their tokens.",
    Scope.RUN,
    (
        Output(
            "run_spec",
            "The run's resolved description and identity: one row. A second.",
            ("runs",),
            always("1"),
            group="spec",
            kinds=("yaml",),
            rows="select run, arm, seed, status, device, caveats from runs where run = $run",
        ),
        Output(
            "tokens",
            "Tokenizer, token shard, examples and probe, content-addressed. About ten seconds for 12 MB, shared by runs.",
            ("tokens", "token_shards", "examples", "example_documents", "probe_sequences"),
            always(CODE_VERSION),
            inputs=("run_spec",),
            group="spec",
            kinds=("safetensors",),
            rows="select artifact, rows, bytes from tokens where run = $run order by rows desc",
        ),
    ),
    wanted=_described,
    pending=_undescribed,
    compute=_describe,
    priority=90,
)
