"""What an update of the ledger costs beside an update of training, on the demo's own run around its formation."""

import shutil
from collections import deque
from pathlib import Path
from typing import Any

import yaml
from attribution_timing import ratios
from store_measure import Result, Say

from mech_pipeline.data.corpora import corpus_sha256, read_corpus
from mech_pipeline.pipeline.ledger.ledger import compute_ledger
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.pipeline.run_row import write_run_row
from mech_pipeline.pipeline.tokens import tokens
from mech_pipeline.pipeline.training import training
from mech_pipeline.spec.experiment import parse_experiment
from mech_pipeline.store.store import Store
from mech_pipeline.training.device import computing

DEMO = Path(__file__).parents[1] / "experiments" / "induction.yaml"


def measure_ledger(folder: Path, until: int, updates: int, turns: int, corpus: str | None, say: Say) -> list[Result]:
    """The ledger stage over the last updates before `until`, as the pipeline runs it, stored rows included.

    Args:
        corpus: text files instead of Python's library.
    """
    run = trained(folder / "trained", until, corpus)
    say(f"ledger: trained to update {until}")
    first = max(step for step in run.checkpoints if step <= until - updates)
    steps = [step for step in run.checkpoints if step > first]

    def train() -> None:
        with computing(run.spec.training):
            deque(run.trainer.updates(run.state(first), until), maxlen=0)

    places = [folder / f"turn{turn}" for turn in range(turns + 1)]
    for place in places:
        shutil.copytree(folder / "trained", place)

    def ledger() -> None:
        done = compute_ledger(OpenRun(Store(str(places.pop())), run.spec), steps)
        assert done == len(steps), "it is computed in a store that has none"

    ratio = ratios({"training": train, "ledger": ledger}, turns)["ledger"]
    what = f"an update of the ledger, of {until - first} up to update {until} of the demo"
    return [Result("ledger", what, ratio, "×", 3.0, ratio, "an update of training")]


def trained(folder: Path, until: int, corpus: str | None) -> OpenRun:
    """Seed 0 of the demo, trained so far."""
    described: dict[str, Any] = yaml.safe_load(DEMO.read_text())
    for asked in ("influence", "arms"):
        described.pop(asked, None)
    described["training"]["steps"] = until
    described |= {"checkpoints": {"every": 10}, "seeds": [0]}
    if corpus is not None:
        described["corpus"] = {"files": corpus}
        described["data"]["examples"] = 256
    spec, store = parse_experiment(described).runs()[0], Store(str(folder))
    read = read_corpus(spec.corpus)
    tokens.prepare_tokens(store, spec, read)
    write_run_row(store, spec, corpus_sha256(read), "planned")
    training.train(store, spec)
    return OpenRun(store, spec)
