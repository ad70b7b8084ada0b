"""Bad inputs, one after the other: text files, cells, experiment files, tokenizers and checkpoints as nobody should write them.

Each is read as the pipeline reads it. What comes back must be what the input says (asked of the file itself, or of the
library that wrote it), or an error in words.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml
from faults_frame import Outcome, Trial, outcome_of_error
from faults_kills import EXPERIMENT
from store_measure import Say

from mech_pipeline.data.corpora import read_corpus
from mech_pipeline.data.pretrained import load_pretrained
from mech_pipeline.progress import Progress
from mech_pipeline.spec.data import Corpus, Tokenizer
from mech_pipeline.spec.experiment import load_experiment
from mech_pipeline.spec.initial import initial_sha256
from mech_pipeline.spec.model import Model
from mech_pipeline.training.model import build_model

Read = tuple[str, Callable[[], bool]]
"""(what is wrong, reads it and says whether what came is what is there)."""
_LETTERS = "ab \t\r\n\x0c\x00\x85\u2028\ufeffé日🙂\u0301"
_ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1")
_ROWS, _CONTEXT = 40, 16


def inputs(folder: Path, count: int, chance: Random, say: Say) -> Iterator[Trial]:
    """Writes bad inputs, a folder each, and reads them."""
    progress = Progress(lambda said: say(str(said)), "read bad inputs", count, "inputs")
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        at = folder / str(number)
        at.mkdir(parents=True)
        what, read = KINDS[kind](at, chance)
        try:
            outcome, seen = (Outcome.SURVIVED if read() else Outcome.SILENT), ""
        except BaseException as error:  # a library in Rust panics past Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            outcome, seen = outcome_of_error(error), repr(error)[:300]
        yield Trial(kind, outcome, f"{what}: {seen}")
        progress(number + 1)


def _text(chance: Random) -> str:
    return "".join(chance.choices(_LETTERS, k=chance.randrange(60))) * chance.choice([1, 1, 5000])


def _text_file(at: Path, chance: Random) -> Read:
    """Any encoding, line end and length; perhaps links that lead back, to another name, or to nothing."""
    encoding = chance.choice(_ENCODINGS)
    content = _text(chance).encode(encoding, errors="ignore")
    (at / "a.txt").write_bytes(content)
    link = chance.choice([None, ".", "a.txt", "gone.txt"])
    if link is not None:
        (at / "link.txt").symlink_to(link)
    if chance.random() < 0.2:
        (at / os.fsdecode(b"caf\xe9.txt")).write_bytes(content)
    found = lambda: [document.text for document in read_corpus(Corpus(files=f"{at}/**/*.txt"))]  # noqa: E731
    return f"{encoding}, link to {link}: {content[:40]!r}", lambda: found() == [content.decode()]


def _cells(at: Path, chance: Random) -> Read:
    """A column with empty cells, or of no text, asked for by this or that split."""
    import datasets

    datasets.disable_progress_bars()
    make = chance.choice(
        [_text, _text, lambda c: c.randrange(9), lambda c: [_text(c)], lambda c: b"x", lambda c: {"a": 1}]
    )
    cells: list[Any] = [make(chance) if chance.random() < 0.7 else None for _ in range(4)]
    saved, asked = chance.choice([None, "train", "test"]), chance.choice(["train", "test"])
    datasets.Dataset.from_dict({"text": cells}, split=saved and datasets.NamedSplit(saved)).save_to_disk(str(at / "d"))
    right = [cell for cell in cells if cell is not None and str(cell).strip()]

    def read() -> bool:
        found = [document.text for document in read_corpus(Corpus(dataset=str(at / "d"), split=asked))]
        return found == right and asked == (saved or "train")

    return f"{cells!r:.80}, split {saved}, asked for {asked}", read


def _experiment_file(at: Path, chance: Random) -> Read:
    """One field becomes something else, or stands twice."""
    content = json.loads(json.dumps(EXPERIMENT))
    stage = chance.choice([name for name, value in content.items() if isinstance(value, dict)])
    field = chance.choice(list(content[stage]))
    value = chance.choice([True, -1, 10**30, 10**12, "2", "yes", None, [], {}, [[1]], 1.5, float("nan"), b"x", "\x00"])
    written = content | {stage: {**content[stage], field: value}}
    text = yaml.safe_dump(written, allow_unicode=True)
    twice = chance.random() < 0.2
    (at / "x.yaml").write_text(text + yaml.safe_dump({stage: content[stage]}) if twice else text)

    def read() -> bool:
        experiment = load_experiment(at / "x.yaml")
        for spec in experiment.runs():
            spec.checkpoint_steps()
        return not twice and _same(getattr(getattr(experiment, stage), field), value)

    return f"{stage}.{field}: {value!r}{', twice' if twice else ''}", read


def _same(found: Any, written: Any) -> bool:
    """Whether a field is what was written; `3e-3` is text to YAML, and lists become tuples."""
    if isinstance(found, float) and isinstance(written, str):
        return found == float(written)
    if isinstance(written, list):
        return isinstance(found, tuple) and len(found) == len(written) and all(map(_same, found, written))
    if isinstance(found, dict) or isinstance(written, dict):
        return found == written or not isinstance(found, dict)
    return isinstance(found, bool) == isinstance(written, bool) and found == written


def _damaged(path: Path, chance: Random) -> str:
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    if chance.random() < 0.5:
        content[place] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        return f"bit in byte {place} of {path.name}"
    path.write_bytes(content[:place])
    return f"{path.name} cut to {place} bytes"


def _tokenizer_file(at: Path, chance: Random) -> Read:
    """A damaged tokenizer.json; one that can still be read is another tokenizer, with another hash."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers

    made = Library(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(at / "t.json"))
    what = _damaged(at / "t.json", chance)
    return what, lambda: bool(load_pretrained(Tokenizer(file=str(at / "t.json"))).encode("a b").ids is not None)


def _checkpoint(at: Path, chance: Random) -> Read:
    """A Llama with something else in its config.json, or damaged files."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4}
    made = LlamaForCausalLM(LlamaConfig(vocab_size=_ROWS, max_position_embeddings=_CONTEXT, **sizes))
    made.save_pretrained(at)
    name = chance.choice(["config.json", "model.safetensors"])
    what = _damaged(at / name, chance) if chance.random() < 0.5 else _configured(at / "config.json", chance)
    tokens = torch.arange(_CONTEXT)[None]

    def read() -> bool:
        spec = Model(family="llama", layers=1, heads=4, d_model=16, d_mlp=24, init_from=str(at))
        spec = spec.model_copy(update={"init_sha256": initial_sha256(str(at))})
        with torch.no_grad():
            ours = build_model(spec, _ROWS, _CONTEXT, 0)(tokens)
            theirs = LlamaForCausalLM.from_pretrained(at, dtype=torch.float32).eval()(tokens).logits
        return bool((ours - theirs).abs().max() <= 1e-4 * theirs.abs().max().clamp(min=1))

    return what, read


def _configured(path: Path, chance: Random) -> str:
    content = json.loads(path.read_bytes())
    field = chance.choice(list(content))
    content[field] = chance.choice([None, 0, -1, 1, 3, 0.5, "x", True, [], {}, 10**30, 1e300])
    path.write_text(json.dumps(content))
    return f"{field}: {content[field]!r}"


KINDS: dict[str, Callable[[Path, Random], Read]] = {
    "text file": _text_file,
    "cells": _cells,
    "experiment file": _experiment_file,
    "tokenizer file": _tokenizer_file,
    "checkpoint": _checkpoint,
}
