"""Bergson's MAGIC on a run of a store, and how well it predicts the run's retrainings, beside the estimators of the store.

`python benchmarks/attribution_magic.py STORE RUN`, minutes. MAGIC differentiates the same training by the code of another
library: its own loop, its own optimizer (torchopt), its own replay. It needs the environment of `attribution.py peers`,
from which only what is missing here is imported.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from attribution_environment import ENVIRONMENT, install, is_installed
from reporting import report
from scipy.stats import spearmanr
from store_measure import Result
from torch import Tensor, nn

from mech_pipeline.attribution.retraining.lds import linear_datamodeling_score
from mech_pipeline.mechanisms.gradient import mechanism_gradient
from mech_pipeline.pipeline.influence.rows import stored_totals
from mech_pipeline.pipeline.influence.wanted import target_steps
from mech_pipeline.pipeline.run import OpenRun
from mech_pipeline.spec.run import RunSpec
from mech_pipeline.store.reading import connect
from mech_pipeline.store.store import Store
from mech_pipeline.training.model import example_losses
from mech_pipeline.training.update.schedule import learning_rate


class WeightedLoss(nn.Module):
    """(1/B) Σ w_i ℓ_i of a batch, as a module without other outputs, which is what MAGIC differentiates."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, example_weight: Tensor) -> Tensor:
        return (example_losses(self.model, input_ids) * example_weight).mean()


class Batches:
    """The run's batches up to a step, in MAGIC's form; one weight per example of the pool."""

    device = torch.device("cpu")

    def __init__(self, run: OpenRun, step: int) -> None:
        self.run, self.step = run, step
        self.weights = nn.Parameter(torch.ones(len(run.tokens.pool)))

    @property
    def requires_grad(self) -> bool:
        return self.weights.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.weights.requires_grad = value

    def __len__(self) -> int:
        return self.step

    def __getitem__(self, update: int) -> dict[str, Tensor]:
        examples = self.run.trainer.batch(update)
        return {"input_ids": self.run.trainer.tokens(examples), "example_weight": self.weights[examples]}


class Removed(NamedTuple):
    """Random removals of one share that were retrained: their examples, and what happened to a mechanism."""

    fraction: float
    examples: list[list[str]]
    change: np.ndarray


def magic_scores(run: OpenRun, step: int, mechanism: str) -> tuple[Tensor, float]:
    """∂M(θ_step)/∂w of every example of the pool by Bergson, and how far its θ_step is from ours, relative to ours."""
    import torchopt
    from bergson.magic.trainer import BackwardState, Trainer

    spec = run.spec.optimizer
    if spec.kind != "adamw" or run.spec.training.micro_batches != 1:
        raise typer.BadParameter("MAGIC is set up for AdamW without accumulation", param_hint="RUN")
    flat, reference = run.trainer.flat, run.state(step).theta
    flat.load(run.state(0).theta)
    optimizer = torchopt.adamw(
        lambda count: learning_rate(spec, int(count)),
        betas=(spec.beta1, spec.beta2),
        eps=spec.eps,
        eps_root=spec.eps_root,
        weight_decay=spec.weight_decay,
    )
    trainer, state = Trainer.initialize(WeightedLoss(flat.model), optimizer)
    batches, clip = Batches(run, step), spec.clip_norm
    with tempfile.TemporaryDirectory() as folder:
        state = trainer.train(state, batches, save_dir=folder, max_grad_norm=clip).detach_()
        theta = torch.cat([value.detach().reshape(-1) for value in state.params.values()])
        own = OpenRun(run.store, run.spec)  # MAGIC has taken the parameters out of the other model
        own.trainer.flat.load(theta)
        gradient = mechanism_gradient(mechanism, own.trainer.flat, run.tokens.probe)
        by_name = {f"model.{name}": part.clone() for name, part in own.trainer.flat.named(gradient).items()}
        moments = [torch.zeros_like(t) for t in state.differentiable_tensors()[len(state.params) :]]
        begin = BackwardState(
            {name: by_name[name] for name in state.params}, moments, torch.zeros_like(batches.weights)
        )
        found = trainer.backward(folder, batches, begin, state, max_grad_norm=clip)
    return found.weight_grads.detach(), float((theta - reference).norm() / reference.norm())


def removals(store: Store, run: str, step: int, mechanism: str) -> Iterator[Removed]:
    """The random removals of a run, by share."""
    with connect(store.root, ["removals", "retrainings"]) as connection:
        rows = connection.execute(
            """select fraction, removal, any_value(change), list(example_id) from retrainings join removals
            using (run, step, removal) where run = ? and step = ? and mechanism = ? and change is not null
            and starts_with(removal, 'random') group by 1, 2 order by 1, 2""",
            [run, step, mechanism],
        ).fetchall()
    for fraction in sorted({row[0] for row in rows}):
        of_share = [row for row in rows if row[0] == fraction]
        yield Removed(fraction, [row[3] for row in of_share], np.array([row[2] for row in of_share]))


def score(name: str, totals: dict[str, float], removed: Removed) -> Result:
    """How well one estimator orders removals of one share."""
    predicted = np.array([-sum(totals.get(example, 0.0) for example in examples) for examples in removed.examples])
    found = linear_datamodeling_score(predicted, removed.change)
    title = f"LDS of {name}, {100 * removed.fraction:g} % removed"
    if found is None:
        return Result("magic", f"{title}: undefined", float("nan"), "")
    between = "" if found.lower is None or found.upper is None else f" [{found.lower:.2f}, {found.upper:.2f}]"
    return Result("magic", f"{title}, n = {found.n}{between}", found.value, "rank correlation")


def main(
    store: Annotated[Path, typer.Argument(help="A store in which the run was retrained.")],
    run: Annotated[str, typer.Argument(help="Its name, such as induction_lds.baseline.s0.")],
    environment: Annotated[Path, typer.Option(help="Where bergson is installed.")] = ENVIRONMENT,
    json: Annotated[Path | None, typer.Option(help="Also write the numbers there.")] = None,
) -> None:
    """Computes MAGIC's scores up to the run's last target and compares."""
    torch.set_num_threads(1)
    if not is_installed(environment / "bin" / "python"):
        faults = install(environment, print)
        if "bergson" in faults:
            raise typer.BadParameter(f"bergson cannot be had there: {faults['bergson']}", param_hint="--environment")
    sys.path += [str(path) for path in environment.glob("lib/python*/site-packages")]
    report("MAGIC", ["magic"], {"magic": lambda _, say: measure(Store(store), run)}, None, None, json)


def measure(store: Store, run: str) -> list[Result]:
    """MAGIC's scores up to the run's last target, beside the run's own and what was retrained."""
    with connect(store.root, ["runs"]) as connection:
        found = connection.execute("select spec from runs where run = ?", [run]).fetchone()
    if found is None:
        raise typer.BadParameter(f"the store has no run {run}", param_hint="RUN")
    here = OpenRun(store, RunSpec.model_validate_json(found[0]))
    step, mechanism = target_steps(here)[-1], here.spec.influence.mechanisms[0]
    scores, distance = magic_scores(here, step, mechanism)
    totals = {"bergson's MAGIC": _by_example([str(name) for name in here.tokens.example_ids], scores)}
    for method in here.spec.influence.methods:
        totals[method] = stored_totals(here, step, mechanism, method)
    ours, theirs = np.array([(value, totals["bergson's MAGIC"][name]) for name, value in totals["adjoint"].items()]).T
    results = [
        Result("magic", "final weights: distance from ours, relative", distance, ""),
        Result("magic", "rank correlation with the adjoint, examples", float(spearmanr(ours, theirs)[0]), ""),
        Result(
            "magic",
            "difference from the adjoint, relative",
            float(np.linalg.norm(theirs - ours) / np.linalg.norm(ours)),
            "",
        ),
    ]
    for removed in removals(store, run, step, mechanism):
        results += [score(name, of_method, removed) for name, of_method in totals.items()]
    return results


def _by_example(names: list[str], scores: Tensor) -> dict[str, float]:
    """Scores by example; equal examples count together."""
    totals: dict[str, float] = {}
    for name, value in zip(names, scores.double().tolist(), strict=True):
        totals[name] = totals.get(name, 0.0) + value
    return totals


if __name__ == "__main__":
    typer.run(main)
