"""What an experiment asks for, before anything is trained: updates, tokens, compute, disk, and time on this machine.

    compute = 6 · parameters · tokens   FLOP (forward and backward of matrix products; Kaplan et al. 2020, §2.1)
    disk    = 12 bytes · parameters · checkpoints   (weights and two moments, float32)

Time is measured: some updates of the run's own model on random tokens, on the device that would train it. It leaves out
checkpoints, analysis and attribution. On a CPU it is processor time by thread, so that other work beside does not count.
"""

import time
from dataclasses import dataclass

import torch

from mech_pipeline.spec.run import RunSpec
from mech_pipeline.training.device import computing, training_device
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.model import build_model, parameter_count
from mech_pipeline.training.update.optimizer import State

_VOCABULARY = 50_257
"""GPT-2's, for tokenizers that are not trained here."""
_UPDATES, _MOST_SECONDS = 5, 10.0
_LARGEST_TIMED = 50_000_000
"""Parameters; larger models are not built for an estimate."""


@dataclass(frozen=True)
class Cost:
    """Of one run.

    Attributes:
        seconds: of training alone; none where it was not measured.
    """

    run: str
    parameters: int
    updates: int
    tokens: int
    checkpoints: int
    checkpoint_bytes: int
    seconds: float | None

    @property
    def state_bytes(self) -> int:
        """Weights, two moments and a gradient, float32: what training holds besides activations."""
        return 16 * self.parameters

    @property
    def flop(self) -> int:
        """Of training."""
        return 6 * self.parameters * self.tokens


def costs(specs: tuple[RunSpec, ...]) -> list[Cost]:
    """Of each run; runs of the same shape are timed once."""
    timed: dict[str, float | None] = {}
    found = []
    for spec in specs:
        shape = f"{spec.model.model_dump_json()} {spec.training.model_dump_json()} {spec.optimizer.model_dump_json()}"
        parameters = parameter_count(spec.model, _vocabulary(spec), spec.data.context)
        if shape not in timed:
            timed[shape] = _seconds_an_update(spec) if parameters <= _LARGEST_TIMED else None
        found.append(_cost(spec, parameters, timed[shape]))
    return found


def _cost(spec: RunSpec, parameters: int, seconds: float | None) -> Cost:
    updates, checkpoints = spec.training.steps, len(spec.checkpoint_steps())
    return Cost(
        run=spec.run,
        parameters=parameters,
        updates=updates,
        tokens=updates * spec.training.batch * spec.data.context,
        checkpoints=checkpoints,
        checkpoint_bytes=12 * parameters * checkpoints,
        seconds=None if seconds is None else seconds * updates,
    )


def _vocabulary(spec: RunSpec) -> int:
    return spec.model.vocabulary or spec.tokenizer.vocabulary or _VOCABULARY


def _seconds_an_update(spec: RunSpec) -> float | None:
    """The fastest of some updates, the first left out; none for what several processes train or that has no device here."""
    if spec.training.processes > 1 or (spec.training.device == "cuda" and not torch.cuda.is_available()):
        return None
    vocabulary = _vocabulary(spec)
    with computing(spec.training):
        model = build_model(spec.model.model_copy(update={"init_from": None}), vocabulary, spec.data.context, 0)
        pool = torch.randint(0, vocabulary, (2 * spec.training.batch, spec.data.context))
        flat = FlatModel(model.to(training_device(spec.training)))
        trainer = Trainer(flat, spec.optimizer, spec.training, pool, spec.seed, spec.run)
        on_cpu = training_device(spec.training).type == "cpu"
        clock, began = time.process_time if on_cpu else time.perf_counter, time.perf_counter()
        last, taken = clock(), list[float]()
        for _ in trainer.updates(State.initial(flat.vector), _UPDATES):
            taken.append(clock() - last)
            last = clock()
            if time.perf_counter() - began > _MOST_SECONDS:
                break
    return min(taken[1:] or taken) / (spec.training.threads if on_cpu else 1)
