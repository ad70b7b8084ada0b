"""What training and attribution cost on a GPU: `python benchmarks/gpu.py [PART …]`, some minutes; benchmarks/README.md.

Model FLOP utilisation is 6 N · tokens/s over the GPU's dense bf16 peak, N all parameters (Kaplan et al. 2020; PaLM's
MFU without the attention term). It is given for fp32 as well, over the same peak.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from reporting import report
from store_measure import Result, Say
from torch import nn
from training import alternately, measure_checkpoints

from mech_pipeline.attribution.influence.influence import Target, influence_sweep
from mech_pipeline.attribution.influence.replay import Replayer
from mech_pipeline.attribution.ledger.ledger import replay_with_factors, window_account
from mech_pipeline.attribution.per_example.components import components_of
from mech_pipeline.attribution.per_example.contraction import Contraction
from mech_pipeline.spec.model import Model
from mech_pipeline.spec.training import Optimizer, Training
from mech_pipeline.training.allocator import keep_freed_memory
from mech_pipeline.training.attention import fused_attention
from mech_pipeline.training.device import computing
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.many.stack import Together
from mech_pipeline.training.model import build_model, example_losses
from mech_pipeline.training.update.optimizer import State

PARTS = ("plain", "stacked", "checkpoints", "attribution")
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16, from the data sheets of the SXM boards."""
DEMO = {"vocabulary": 512, "context": 64, "batch": 32}


def synchronised(device: torch.device) -> None:
    """Waits until the GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def trainer_of(spec: Model, shape: dict[str, int], training: Training, seed: int = 0) -> Trainer:
    """A trainer on random tokens, on the device of its training."""
    pool = torch.randint(0, shape["vocabulary"], (1024, shape["context"]), generator=torch.Generator().manual_seed(0))
    model = build_model(spec, shape["vocabulary"], shape["context"], seed).to(training.device)
    return Trainer(FlatModel(model), Optimizer(), training, pool, seed)


class OurLoop:
    """Training as the pipeline does it, without a store: deterministic kernels, the pool on the CPU."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.state = trainer, State.initial(trainer.flat.vector)

    def updates(self, count: int) -> None:
        with computing(self.trainer.training):
            for made in self.trainer.updates(self.state, self.state.step + count):
                self.state = made.after
            synchronised(self.trainer.device)


class PlainLoop:
    """The same module in a plain loop: cross entropy, clipping, PyTorch's fused AdamW, the pool on the GPU."""

    def __init__(self, spec: Model, shape: dict[str, int], training: Training) -> None:
        self.training, self.device = training, torch.device(training.device)
        self.model = build_model(spec, shape["vocabulary"], shape["context"], 0).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3, weight_decay=0.01, fused=True)
        self.pool = torch.randint(0, shape["vocabulary"], (1024, shape["context"]), device=self.device)

    def updates(self, count: int) -> None:
        low = self.training.precision == "bf16"
        for _ in range(count):
            tokens = self.pool[torch.randint(len(self.pool), (self.training.batch,), device=self.device)]
            with torch.autocast(self.device.type, torch.bfloat16, enabled=low), fused_attention(True):
                logits = self.model(tokens[:, :-1])
                loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
        synchronised(self.device)


def peak_flops(device: torch.device) -> float:
    """Of dense bf16 products: of a known GPU, else measured on a large one."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    for known, peak in PEAK_FLOPS.items():
        if known in name:
            return peak
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        synchronised(device)
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / min(seconds)


def measure_plain(
    device: str, presets: list[str], shape: dict[str, int], updates: int, turns: int, say: Say
) -> list[Result]:
    """Our update against the plain loop's, by preset and precision."""
    results, peak = [], peak_flops(torch.device(device))
    for preset in presets:
        spec = Model.model_validate({"preset": preset})
        for precision in ("fp32", "bf16"):
            training = Training.model_validate(
                {"batch": shape["batch"], "device": device, "precision": precision, "attention": "fused"}
            )
            ours, plain = OurLoop(trainer_of(spec, shape, training)), PlainLoop(spec, shape, training)
            seconds, theirs = (taken / updates for taken in alternately([ours, plain], updates, turns))
            rate = shape["batch"] * (shape["context"] - 1) / seconds
            use = 100 * 6 * ours.trainer.flat.vector.numel() * rate / peak
            what = f"{preset}, {precision}"
            results += [
                Result(
                    "plain", f"time of an update, {what}", seconds * 1e3, "ms", None, seconds / theirs, "plain loop"
                ),
                Result("plain", f"tokens a second, {what}", rate, "1/s"),
                Result("plain", f"model FLOP utilisation, {what}", use, "%"),
            ]
            say(f"plain: {what}, {seconds * 1e3:.1f} ms, {use:.1f} % of peak")
            del ours, plain
    return results


def measure_stacked(device: str, runs: int, updates: int, turns: int, say: Say) -> list[Result]:
    """Seeds of the demo's model in one stack, against the same seeds one after another."""
    training = Training.model_validate({"batch": DEMO["batch"], "device": device})
    stacked = training.model_copy(update={"stacked": True})
    alone = [OurLoop(trainer_of(Model(), DEMO, training, seed)) for seed in range(runs)]
    seconds: dict[str, list[float]] = {"alone": [], "stack": []}
    for turn in range(turns + 1):
        began = time.perf_counter()
        for each in alone:
            each.updates(updates)
        between = time.perf_counter()
        together = Together(runs, 1, 1)
        stack = [replace(each.trainer, training=stacked, together=together) for each in alone]
        starts = [each.state for each in alone]

        def train(seed: int, stack: list[Trainer] = stack, starts: list[State] = starts) -> None:
            for _ in stack[seed].updates(starts[seed], starts[seed].step + updates):
                pass
            stack[seed].together.leave()  # type: ignore[union-attr]

        restarted = time.perf_counter()
        with computing(training), ThreadPoolExecutor(runs) as pool:
            list(pool.map(train, range(runs)))
            synchronised(alone[0].trainer.device)
        if turn:
            seconds["alone"].append(between - began)
            seconds["stack"].append(time.perf_counter() - restarted)
        say(f"stacked: turn {turn + 1} of {turns + 1}")
    one, other = median(seconds["alone"]), median(seconds["stack"])
    what = f"time of {runs} runs of the demo's model"
    return [
        Result("stacked", what, other / one, "×", 1 / 4, one / other, "× the throughput"),
        Result("stacked", "updates of a run alone", runs * updates / one, "1/s"),
        Result("stacked", "updates of all runs in the stack", runs * updates / other, "1/s"),
    ]


def measure_attribution(device: str, models: dict[str, tuple[Model, dict[str, int], int]], say: Say) -> list[Result]:
    """Seconds of a ledger and of an influence sweep, each with its replay, relative to the training they explain."""
    results = []
    for name, (spec, shape, updates) in models.items():
        training = Training.model_validate({"batch": shape["batch"], "device": device})
        trainer = trainer_of(spec, shape, training)
        with computing(training):
            acts = _acts(trainer, spec, updates)
            seconds: dict[str, list[float]] = {what: [] for what in acts}
            for turn in range(3):
                for what, act in acts.items():
                    synchronised(trainer.device)
                    began = time.perf_counter()
                    act()
                    synchronised(trainer.device)
                    taken = (time.perf_counter() - began) / updates
                    say(f"attribution: {name}, {what}, turn {turn + 1} of 3: {1e3 * taken:.1f} ms an update")
                    if turn:
                        seconds[what].append(taken)
        train = median(seconds.pop("training"))
        results.append(Result("attribution", f"an update of training, {name}", train * 1e3, "ms"))
        for what, measured in seconds.items():
            ratio = median(measured) / train
            results.append(Result("attribution", f"an update of {what}, {name}", ratio, "×", None, ratio, "training"))
    return results


def _acts(trainer: Trainer, spec: Model, updates: int) -> dict[str, Callable[[], Any]]:
    start = State.initial(trainer.flat.vector)
    end = list(trainer.updates(start, updates))[-1].after
    components = components_of(trainer.flat, spec.heads, spec.key_value_heads)
    contraction = Contraction(trainer.flat, components)
    probe = trainer.tokens(torch.arange(8))

    def gradient(theta: torch.Tensor) -> torch.Tensor:
        trainer.flat.load(theta)
        return trainer.flat.gradient(example_losses(trainer.flat.model, probe).mean())

    def train() -> None:
        for _ in trainer.updates(start, updates):
            pass

    def ledger() -> None:
        made, factors = replay_with_factors(trainer, start, updates)
        window_account(trainer.optimizer, components, contraction, gradient, made, factors)

    def influence() -> None:
        states = {0: start, updates: end}
        replayer = Replayer(trainer, states.__getitem__, lambda state: None, lambda state: True)
        target = Target("loss", updates, gradient(end.theta))
        for part in influence_sweep(trainer, [target], [lambda: replayer.window(0, updates)]):
            part.scores.cpu()

    return {"training": train, "the ledger": ledger, "influence": influence}


def main(
    parts: Annotated[list[str] | None, typer.Argument(help=f"any of {', '.join(PARTS)}; all by default")] = None,
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the program")] = "cuda",
    preset: Annotated[list[str] | None, typer.Option(help="models of `plain`")] = None,
    vocabulary: Annotated[int, typer.Option(help="rows of the embedding of presets")] = 50_304,
    context: Annotated[int, typer.Option(help="tokens of an example of presets")] = 512,
    batch: Annotated[int, typer.Option(help="examples of an update of presets")] = 32,
    updates: Annotated[int, typer.Option(help="updates a turn")] = 5,
    turns: Annotated[int, typer.Option(help="timed turns of each; the median counts")] = 3,
    runs: Annotated[int, typer.Option(help="seeds in a stack")] = 8,
    stack_updates: Annotated[int, typer.Option(help="updates a turn of the demo's model")] = 100,
    folder: Annotated[Path | None, typer.Option(help="where to work")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="also write the results here")] = None,
) -> None:
    """Measures training and attribution on a GPU."""
    torch.set_num_threads(1)
    keep_freed_memory()
    shape = {"vocabulary": vocabulary, "context": context, "batch": batch}
    presets = preset or ["pythia-14m", "pythia-70m", "gpt2-small"]
    small = {"vocabulary": vocabulary, "context": context, "batch": max(1, batch // 4)}
    first = Model.model_validate({"preset": presets[0]})
    models = {"demo": (Model(), DEMO, 4 * updates), presets[0]: (first, small, updates)}
    measures: dict[str, Callable[[Path, Say], list[Result]]] = {
        "plain": lambda at, say: measure_plain(device, presets, shape, updates, turns, say),
        "stacked": lambda at, say: measure_stacked(device, runs, stack_updates, turns, say),
        "checkpoints": lambda at, say: measure_checkpoints(at, 3 * stack_updates, turns, device),
        "attribution": lambda at, say: measure_attribution(device, models, say),
    }
    report("GPU", PARTS, measures, parts, folder, json_file)


if __name__ == "__main__":
    typer.run(main)
