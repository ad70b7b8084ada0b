"""Tokens in a store: earlier runs keep theirs, large ones lie in shards, and every kind of data trains bit for bit."""

import copy
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.data.pool import Pool
from mech_pipeline.data.sharded import ShardedArray
from mech_pipeline.errors import MechError
from mech_pipeline.pipeline import plan
from mech_pipeline.pipeline.checkpoints import artifact_versions, training_fingerprint
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.run_row import write_run_row
from mech_pipeline.pipeline.tokens import artifacts, tokens
from mech_pipeline.pipeline.tokens import wanted as tokens_cells
from mech_pipeline.pipeline.training import training
from mech_pipeline.resolve import resolve
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.care.maintain import maintain_store
from mech_pipeline.store.care.repair import repair_store
from mech_pipeline.store.care.verify import verify_store
from mech_pipeline.store.reading.query import query
from mech_pipeline.store.store import Store
from mech_pipeline.training.update.optimizer import State
from tests.support.tiny import TINY

PARTS = {"parts": {"code": {"files": "text/*.txt"}, "prose": {"files": "prose/*.txt"}}}
PACKED = {**TINY["data"], "examples": 40, "plain": 0.25, "tiled": 0.5, "packed": 0.25}


def spec_of(index=0, **change):
    alone = {"arms": {"baseline": {}}} if "data" in change else {}  # the control arm has shares of its own
    return resolve(parse_experiment(copy.deepcopy(TINY) | alone | change)).runs()[index]


def prepare(store, spec, emit=lambda line: None):
    documents = read_corpus(spec.corpus)
    made = tokens.prepare_tokens(store, spec, documents, emit)
    write_run_row(store, spec, corpus_sha256(documents), "planned")
    return made


@pytest.fixture
def folder(folder, monkeypatch):
    """With prose beside the text, and a cache of its own."""
    (folder / "prose").mkdir()
    for index in range(8):
        sentences = [f"Sentence {line} of letter {index} tells of {index * line} things.\n" for line in range(25)]
        (folder / "prose" / f"letter_{index}.txt").write_text("".join(sentences))
    monkeypatch.setenv("MECH_CACHE", str(folder / "cache"))
    return folder


def test_tokens_and_fingerprints_of_earlier_runs_stay_as_they_were(folder, local_store):
    """Written down from the version before shards, parts and packing; old runs must not be made again."""
    spec = spec_of()
    prepare(local_store, spec)
    versions = artifact_versions(local_store, spec.run)
    assert versions["pool"].startswith("c816be469bc1932b")
    assert versions["corpus"].startswith("3c8a4e106a36367d")
    assert versions["probe"].startswith("f044047fb48eccc8")
    cells = tokens_cells.wanted(spec, corpus_sha256(read_corpus(spec.corpus)))
    assert cells[tokens_cells.artifact_cell(spec.run, "pool")].startswith("641b96dee38eafe4")
    assert cells[tokens_cells.artifact_cell(spec.run, "tokenizer")].startswith("c5a286a56c673a86")
    assert spec.tokens_slice().startswith("d067c86a7146b0a8")
    assert spec.training_slice().startswith("f6961884591808ca")
    assert query(local_store.root, "select count(*) from token_shards").rows() == [(0,)]


def small_shards(monkeypatch):
    monkeypatch.setattr(artifacts, "SHARD_BYTES", 1000)


def rows_of(store):
    columns = 'example_id, kind, source, document, "offset", line, period, n_tokens, text, repeat_at'
    return query(store.root, f"select {columns} from examples order by all").rows()


def test_a_pool_in_shards_is_the_pool_in_one_file(folder, store, tmp_path, monkeypatch):
    spec = spec_of()
    whole = Store(tmp_path / "whole")
    prepare(whole, spec)
    small_shards(monkeypatch)
    lines = []
    prepare(store, spec, lines.append)
    shards = query(store.root, "select artifact, count(*), sum(rows), max(bytes) from token_shards group by 1").rows()
    counts = {name: (count, rows) for name, count, rows, _ in shards}
    assert counts["pool"] == (3, 64)
    assert counts["corpus"][0] >= 4
    assert all(size < 2500 for *_, size in shards)
    assert any(str(line).startswith("tokenise tiny.baseline.s0: 1/1 MB") for line in lines)
    one, many = OpenRun(whole, spec), OpenRun(store, spec)
    assert torch.equal(one.tokens.pool[:], many.tokens.pool[:])
    assert (one.tokens.example_ids == many.tokens.example_ids).all()
    assert one.artifacts["probe"] == many.artifacts["probe"]
    assert rows_of(whole) == rows_of(store)
    updates = [list(run.trainer.updates(State.initial(run.trainer.flat.vector), 3)) for run in (one, many)]
    assert torch.equal(updates[0][-1].after.theta, updates[1][-1].after.theta)
    assert prepare(store, spec) == 0
    assert verify_store(store.files).damage == []


def test_other_runs_share_shards(folder, local_store, monkeypatch):
    small_shards(monkeypatch)
    first, second, control = (spec_of(index) for index in range(3))
    for spec in (first, second, control):
        prepare(local_store, spec)
    names = "select artifact, shard, count(distinct uri) from token_shards where run <> ? group by all order by all"
    assert {row[2] for row in query(local_store.root, names.replace("?", f"'{control.run}'")).rows()} == {1}
    corpus = "select count(distinct uri), count(distinct run) from token_shards where artifact = 'corpus' and shard = 0"
    assert query(local_store.root, corpus).rows() == [(1, 3)]
    maintain_store(local_store)
    for spec in (first, control):
        assert len(OpenRun(local_store, spec).tokens.pool[:]) == 64


def damage(store, where, content=None):
    uri = query(store.root, f"select uri from token_shards where {where}").rows()[0][0]
    path = Path(store.root) / uri
    path.chmod(0o644)
    path.unlink() if content is None else path.write_bytes(content)


def test_a_lost_or_cut_shard_is_named_and_made_again(folder, local_store, monkeypatch):
    small_shards(monkeypatch)
    spec = spec_of()
    sha256 = corpus_sha256(read_corpus(spec.corpus))
    prepare(local_store, spec)
    before = OpenRun(local_store, spec).tokens.pool[:]
    assert "spec" not in plan.ready_stages(local_store, spec, sha256)
    damage(local_store, "artifact = 'pool' and shard = 1", b"cut")
    with pytest.raises(MechError, match=r"shard 1 of pool of run tiny\.baseline\.s0 is corrupt: .* has 3 bytes"):
        tokens.load_tokens(local_store, spec)
    damage(local_store, "artifact = 'pool' and shard = 1")
    with pytest.raises(MechError, match=r"shard 1 of pool of run tiny\.baseline\.s0 is missing"):
        tokens.load_tokens(local_store, spec)
    repair_store(local_store.files, verify_store(local_store.files))
    assert plan.ready_stages(local_store, spec, sha256) == {"spec": 1}
    with pytest.raises(MechError, match="pool of run tiny.baseline.s0 has 2 of its 3 shards"):
        tokens.load_tokens(local_store, spec)
    assert prepare(local_store, spec) == 1
    assert torch.equal(OpenRun(local_store, spec).tokens.pool[:], before)


def test_shards_from_s3_are_fetched_once_and_checked(folder, s3_root, monkeypatch):
    small_shards(monkeypatch)
    store, spec = Store(s3_root), spec_of()
    prepare(store, spec)
    pool = OpenRun(store, spec).tokens.pool[:]
    cached = {path.name: path.stat().st_mtime_ns for path in (folder / "cache").iterdir()}
    uris = query(store.root, "select uri, sha256 from token_shards where artifact = 'pool' order by shard").rows()
    assert {f"{sha256}.safetensors" for _, sha256 in uris} <= set(cached)
    assert torch.equal(OpenRun(store, spec).tokens.pool[:], pool)
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "cache").iterdir()} == cached
    (folder / "cache" / f"{uris[0][1]}.safetensors").unlink()
    store.files.write(uris[0][0], b"x" * len(store.files.read(uris[0][0])))
    with pytest.raises(MechError, match=r"shard 0 of pool of run tiny\.baseline\.s0 is corrupt"):
        tokens.load_tokens(store, spec)


def test_a_pool_reads_what_a_tensor_would_give():
    tensor = torch.arange(60).reshape(12, 5)
    shards = [tensor[a:b].numpy().astype(np.uint16) for a, b in ((0, 5), (5, 6), (6, 12))]
    pool = Pool(ShardedArray(shards))
    assert (len(pool), pool.shape) == (12, (12, 5))
    for index in (
        torch.tensor([11, 0, 5, 5]),
        torch.tensor([], dtype=torch.int64),
        torch.arange(12),
        slice(4, 9),
        6,
        -1,
    ):
        assert torch.equal(pool[index], tensor[index])
        assert pool[index].dtype == torch.int64
    for beyond in (torch.tensor([12]), torch.tensor([-13])):
        with pytest.raises(IndexError):
            pool[beyond]


def test_parts_kinds_and_packing_reach_training_and_tables(folder, local_store):
    mixture = [
        {"from": 0, "weights": {"code/tiled": 3, "prose": 1}},
        {"from": 4, "weights": {"prose": 1, "code/packed": 1}},
    ]
    spec = spec_of(corpus=PARTS, data={**PACKED, "mixture": mixture})
    prepare(local_store, spec)
    run = OpenRun(local_store, spec)
    stored = {name: (kind, source) for name, kind, source, *_ in rows_of(local_store)}
    for step in range(8):
        seen = [stored[name] for name in run.tokens.example_ids[run.trainer.batch(step).numpy()]]
        prose = sum(source == "prose" for _, source in seen)
        if step < 4:
            assert (prose, seen.count(("tiled", "code"))) == (2, 6)
        else:
            assert (prose, seen.count(("packed", "code"))) == (4, 4)
    plain = spec_of(corpus=PARTS, data=PACKED)
    assert tokens_cells.wanted(plain, "c") == tokens_cells.wanted(spec, "c"), "changing the curriculum makes no tokens"
    prepare(local_store, plain)
    assert training_fingerprint(local_store, plain) != training_fingerprint(local_store, spec)


def test_example_documents_point_at_the_text_of_every_packed_token(folder, local_store):
    spec = spec_of(corpus=PARTS, data=PACKED)
    prepare(local_store, spec)
    rows = query(
        local_store.root,
        'select d.document, d."offset", d.source, d.position, d.n_tokens, e.text, e.document, e."offset", e.n_tokens '
        "from example_documents d join examples e using (example_id) where e.kind = 'packed' order by example_id, position",
    ).rows()
    packed = query(local_store.root, "select count(*) from examples where kind = 'packed'").rows()[0][0]
    assert packed == 10
    assert len(rows) > packed - 1
    for document, offset, source, position, n_tokens, text, first, first_offset, length in rows:
        content = (folder / document).read_bytes()
        assert source == ("prose" if document.startswith("prose") else "code")
        assert 0 < n_tokens <= length - position
        if position == 0:
            assert (document, offset) == (first, first_offset)
            assert content[offset:].decode().startswith(text.split("<|endoftext|>")[0])


def test_resume_under_a_mixture_and_weights_is_bit_for_bit(folder, local_store, tmp_path):
    mixture = [{"from": 0, "weights": {"tiled": 1}}, {"from": 9, "weights": {"tiled": 1, "plain": 2}}]
    data = {**TINY["data"], "mixture": mixture}
    prepare(local_store, spec_of())
    ids = OpenRun(local_store, spec_of()).tokens.example_ids
    frame = {"example_id": ids[::3].tolist(), "weight": [0.0, 2.0] * 11, "first_update": [None, 5] * 11}
    pl.DataFrame(frame).write_parquet("weights.parquet")
    spec = spec_of(data={**data, "weights": "weights.parquet"})
    assert prepare(local_store, spec) == 1, "the weights alone are made"
    training.train(local_store, spec)
    run = OpenRun(local_store, spec)
    for begin, end in run.windows(24):
        run.replay(begin, end)  # raises if a bit differs
    unweighted = spec_of(data=data)
    other = Store(tmp_path / "other")
    prepare(other, unweighted)
    training.train(other, unweighted)
    assert OpenRun(other, unweighted).checkpoints[24].data_version != run.checkpoints[24].data_version


def test_changed_weights_make_new_weights_and_new_training_and_no_new_pool(folder, local_store):
    prepare(local_store, spec_of())
    ids = OpenRun(local_store, spec_of()).tokens.example_ids

    def weighted(weight):
        pl.DataFrame({"example_id": ids[:1].tolist(), "weight": [weight]}).write_csv("weights.csv")
        os.utime("weights.csv", ns=(int(weight * 10), int(weight * 10)))
        spec = spec_of(data={**TINY["data"], "weights": "weights.csv"})
        made = prepare(local_store, spec)
        return made, artifact_versions(local_store, spec.run), training_fingerprint(local_store, spec)

    plain = training_fingerprint(local_store, spec_of())
    one, two = weighted(0.5), weighted(0.25)
    assert (one[0], two[0]) == (1, 1)
    assert one[1]["pool"] == two[1]["pool"]
    assert len({plain, one[2], two[2]}) == 3
    run = OpenRun(local_store, spec_of(data={**TINY["data"], "weights": "weights.csv"}))
    assert run.trainer.weights_at(0, torch.tensor([0, 1])).tolist() == [0.25, 1]


def test_unknown_examples_in_a_weights_file_stop_before_training(folder, local_store):
    Path("weights.csv").write_text("example_id,weight\n0123456789abcdef,1\n")
    with pytest.raises(MechError, match="example 0123456789abcdef is not in the pool"):
        prepare(local_store, spec_of(data={**TINY["data"], "weights": "weights.csv"}))


def test_a_part_without_documents_to_train_on_is_named(folder, local_store):
    for path in sorted((folder / "prose").iterdir())[1:]:
        path.unlink()
    with pytest.raises(
        MechError, match="part prose of the corpus has too few documents \\(1\\) to keep 20% for probes"
    ):
        prepare(local_store, spec_of(corpus=PARTS))
    (folder / "prose" / "letter_0.txt").write_text(" \n")
    with pytest.raises(MechError, match=r"part prose of the corpus is empty: prose/\*\.txt has no text"):
        prepare(local_store, spec_of(corpus=PARTS))


def test_a_pretrained_tokenizer_with_a_large_vocabulary_trains(folder, local_store):
    from tests.support.tokenizers import words

    words(70_000).save("words.json")
    for index in range(12):
        text = " ".join(f"w{69_999 - index * 100 - k % 90}" for k in range(200))
        (folder / "text" / f"file_{index:02d}.txt").write_text(text)
    spec = spec_of(tokenizer={"file": "words.json"}, model={"layers": 1, "heads": 1, "d_model": 2})
    prepare(local_store, spec)
    run = OpenRun(local_store, spec)
    assert run.tokens.vocabulary == 70_000
    assert int(run.tokens.pool[:].max()) > 65_535
    run.trainer.step(State.initial(run.trainer.flat.vector))
    for document, offset, text in query(local_store.root, 'select document, "offset", text from examples').rows():
        assert (folder / document).read_text()[offset:].startswith(text.split()[0])
