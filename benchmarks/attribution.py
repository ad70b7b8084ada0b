"""What attribution costs, measured: `python benchmarks/attribution.py [PART …]`, some ten minutes; see benchmarks/README.md.

Every number is a ratio to a plain forward and backward (or training) of the same data, in CPU seconds of one thread,
timed alternately in the same process; the median of the ratios counts.
"""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from attribution_environment import ENVIRONMENT
from attribution_ledger import measure_ledger
from attribution_peers import measure_peers
from attribution_timing import ratios
from reporting import report
from store_measure import Result, Say
from torch import Tensor

from mech_pipeline.attribution.influence.influence import Target, influence_sweep
from mech_pipeline.attribution.influence.replay import Replayer
from mech_pipeline.attribution.per_example.capture import example_factors
from mech_pipeline.attribution.per_example.components import Components, components_of
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.attribution.per_example.in_training import InTraining
from mech_pipeline.attribution.per_example.target_tokens import target_scores
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.training import Optimizer, Training
from mech_pipeline.training.allocator import keep_freed_memory
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.model import build_model, example_losses
from mech_pipeline.training.update.optimizer import State

PARTS = ("examples", "tokens", "in_training", "ledger", "influence", "peers")
FLOOR = "forward and backward"
BATCH = 16
GPT = Model(layers=2, heads=4, d_model=128, d_mlp=512, normalization="layer_norm")
DEMO = "demo"
SHAPES = {"GPT": (GPT, 2048, 128), DEMO: (Model(), 512, 64)}
"""Model, vocabulary, context; the demo is attention-only, two layers of width 64."""


class Bench:
    """A model, random examples and random directions."""

    def __init__(self, spec: Model, vocabulary: int, context: int, examples: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.flat = FlatModel(build_model(spec, vocabulary, context, 0))
        self.tokens = torch.randint(0, vocabulary, (examples, context), generator=generator)
        self.directions = torch.randn(8, len(self.flat.vector), generator=generator)
        self.components = components_of(self.flat, spec.heads)

    def plain(self) -> None:
        """The floor: gradients of batch means."""
        for part in self.tokens.split(BATCH):
            self.flat.gradient(example_losses(self.flat.model, part).mean())

    def scores(self, count: int, only: Sequence[str] | None = None, *, split: bool = True) -> Callable[[], Tensor]:
        """⟨∇ℓ_i, V⟩ of every example, forward and backward included."""
        whole = Components(("all",), torch.zeros_like(self.components.index))
        contraction = Contraction(self.flat, self.components if split else whole, only)

        def act() -> Tensor:
            parts = self.tokens.split(BATCH)
            factors = (example_factors(self.flat.model, part, contraction.modules) for part in parts)
            return torch.cat([contraction(each, self.directions[:count]) for each in factors], dim=1)

        return act

    def positions(self, count: int, *, split: bool = False) -> Callable[[], None]:
        """The same per position."""
        contraction = Contraction(self.flat, self.components)

        def act() -> None:
            for part in self.tokens.split(BATCH):
                factors = example_factors(self.flat.model, part)
                contraction.per_token(factors, self.directions[:count], components=split)

        return act

    def targets(self) -> None:
        """The same per target token, one direction."""
        for part in self.tokens.split(BATCH):
            target_scores(self.flat, part, self.directions[0])


def rows(part: str, shape: str, found: dict[str, float], targets: dict[str, float]) -> list[Result]:
    """A row per act but the first, against it."""
    baseline, *names = found
    return [
        Result(part, f"{name}; {shape}", found[name], "×", targets.get(name), found[name], baseline) for name in names
    ]


def measure_examples(examples: int, turns: int) -> list[Result]:
    """Scores per example, and what the split by head costs."""
    results = []
    for shape, (spec, vocabulary, context) in SHAPES.items():
        bench = Bench(spec, vocabulary, context, examples)
        acts = {
            FLOOR: bench.plain,
            "8 directions": bench.scores(8),
            "2 directions": bench.scores(2),
            "1 direction": bench.scores(1),
            "8 directions, one head of the last layer": bench.scores(8, ["L1H0.*"]),
        }
        results += rows("examples", shape, ratios(acts, turns), {"8 directions": 1.3})
        split = ratios({"whole": bench.scores(8, split=False), "split": bench.scores(8)}, 2 * turns)["split"]
        what = f"the split by component costs; {shape}"
        results.append(Result("examples", what, max(0.0, 100 * (split - 1)), "%", 5.0, split, "no split"))
    return [*results, agreement()]


def agreement() -> Result:
    """Rounding in float32, against one backward per example in float64; beside it, that of one backward in float32."""
    bench = Bench(GPT, 2048, 128, 8)
    found = bench.scores(8, split=False)()[..., 0]
    slow = _one_by_one(bench)
    bench.flat = FlatModel(bench.flat.model.double())
    truth = _one_by_one(bench)
    error, usual = (float((scores - truth).abs().max() / truth.abs().max()) for scores in (found, slow))
    what = "largest error, relative to the largest score"
    return Result("examples", what, error, "", 2e-6, error / usual, "one backward per example, float32")


def _one_by_one(bench: Bench) -> Tensor:
    gradients = [bench.flat.gradient(example_losses(bench.flat.model, example[None])[0]) for example in bench.tokens]
    return bench.directions.double() @ torch.stack(gradients).T.double()


def measure_tokens(examples: int, turns: int) -> list[Result]:
    """Scores per token in both meanings."""
    results = []
    for shape, (spec, vocabulary, context) in SHAPES.items():
        bench = Bench(spec, vocabulary, context, examples)
        acts = {
            FLOOR: bench.plain,
            "8 directions, position": bench.positions(8),
            "8 directions, position and component": bench.positions(8, split=True),
            "1 direction, position": bench.positions(1),
            "1 direction, target": bench.targets,
        }
        results += rows(
            "tokens", shape, ratios(acts, turns), {"8 directions, position": 2.0, "1 direction, target": 1.8}
        )
    return results


def measure_in_training(turns: int) -> list[Result]:
    """What scores cost that are taken from the training backward, against the bare update."""
    confined: dict[str, tuple[int, list[str] | None, float | None]] = {
        "all components": (1, None, 5.0),
        "all components, 8 directions": (8, None, None),
        "attention": (1, ["L*[HG]*"], 5.0),
        "one head": (1, ["L1H0.*"], 5.0),
    }
    results = []
    for shape, (spec, vocabulary, context) in SHAPES.items():
        bench = Bench(spec, vocabulary, context, 1024)
        trainer = Trainer(bench.flat, Optimizer(), Training(batch=BATCH), bench.tokens, 0)
        acts: dict[str, Callable[[], Tensor]] = {"update": _update(trainer)}
        for name, (count, only, _) in confined.items():
            contraction = Contraction(bench.flat, bench.components, only)
            acts[name] = _update(trainer, InTraining(trainer, contraction, bench.directions[:count]))
        for name, ratio in list(ratios(acts, 4 * turns).items())[1:]:
            cost = max(0.0, 100 * (ratio - 1))
            results.append(
                Result("in_training", f"scores of {name}; {shape}", cost, "%", confined[name][2], ratio, "update")
            )
        changed = int((acts["update"]() != acts["all components"]()).sum())
        results.append(Result("in_training", f"numbers of the gradient that change; {shape}", changed, "", 0))
    return results


def _update(trainer: Trainer, scorer: InTraining | None = None) -> Callable[[], Tensor]:
    """One update, scored or not; gives the batch gradient."""
    state = State.initial(trainer.flat.vector)

    def act() -> Tensor:
        if scorer is None:
            return trainer.step(state).gradient
        with scorer:
            gradient = trainer.step(state).gradient
        scorer.scores()
        return gradient

    return act


def measure_influence(updates: int, turns: int) -> list[Result]:
    """The sweep back to the first update, replay included, against the training that it explains."""
    spec, vocabulary, context = SHAPES[DEMO]
    bench = Bench(spec, vocabulary, context, 1024)
    trainer = Trainer(bench.flat, Optimizer(), Training(batch=32), bench.tokens, 0)
    start = State.initial(bench.flat.vector)
    states = {0: start} | {made.after.step: made.after for made in trainer.updates(start, updates)}
    replayer = Replayer(
        trainer,
        states.__getitem__,
        lambda state: None,
        lambda state: torch.equal(state.theta, states[state.step].theta),
    )
    window = max(1, updates // 4)
    begins = range(0, updates, window)

    def sweep(count: int) -> Callable[[], object]:
        targets = [Target(f"M{k}", updates, bench.directions[k]) for k in range(count)]
        windows = [lambda b=begin: replayer.window(b, min(b + window, updates)) for begin in reversed(begins)]
        return lambda: deque(influence_sweep(trainer, targets, windows), maxlen=0)

    acts = {
        "training": lambda: list(trainer.updates(start, updates)),
        "1 mechanism": sweep(1),
        "4 mechanisms": sweep(4),
    }
    found = ratios(acts, turns)
    per = found["4 mechanisms"] / 4
    return [
        Result("influence", "sweep of 1 mechanism", found["1 mechanism"], "×", 3.0, found["1 mechanism"], "training"),
        Result("influence", "sweep of 4 mechanisms, each", per, "×", None, per, "training"),
    ]


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"any of {', '.join(PARTS)}; all by default")] = None,
    examples: Annotated[int, typer.Option(help="examples that are scored")] = 64,
    turns: Annotated[int, typer.Option(help="timed turns of each; the median counts")] = 5,
    updates: Annotated[int, typer.Option(help="updates that ledger and influence go back over")] = 40,
    until: Annotated[int, typer.Option(help="update of the demo at which the ledger's end; it forms at 600")] = 640,
    corpus: Annotated[str | None, typer.Option(help="text files for the ledger, instead of Python's library")] = None,
    environment: Annotated[Path, typer.Option(help="virtual environment of the peers, made if missing")] = ENVIRONMENT,
    folder: Annotated[Path | None, typer.Option(help="where to work")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the results here")] = None,
) -> None:
    """Measures attribution on this machine's CPU, one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    measures: dict[str, Callable[[Path, Say], list[Result]]] = {
        "examples": lambda at, say: measure_examples(examples, turns),
        "tokens": lambda at, say: measure_tokens(examples, turns),
        "in_training": lambda at, say: measure_in_training(turns),
        "ledger": lambda at, say: measure_ledger(at, until, updates, turns, corpus, say),
        "influence": lambda at, say: measure_influence(updates, turns),
        "peers": lambda at, say: measure_peers(environment, at, say, examples, turns),
    }
    report("Attribution", PARTS, measures, parts, folder, json_file)


if __name__ == "__main__":
    typer.run(main)
