"""Influence functions with EK-FAC: (G + λ)⁻¹ layer by layer in the eigenbasis of Kronecker factors, by `kronfluence`.

    ∂M/∂w_{i,s} = −(1/N) Σ_layers ⟨∇ℓ_i, Q (Λ + λ)⁻¹ Qᵀ ∇M⟩,       Q = Q_A ⊗ Q_S,  Λ_jk = E (Qᵀ ∇ log p(y))²_jk

for N = T B presentations, as in `gauss_newton.py`, whose assumption (training has converged) and normalisation it shares.
Covered are weights and biases of linear layers inside numbered layers. Embeddings, positions, norms and the unembedding
are **left out**: a mechanism that moves through them is scored by the rest. Layers do not interact. λ is 0.1 times the
mean of Λ in each layer unless given. Labels are drawn from the model, so G is that of `curvature.py` in expectation.

kronfluence asks for torchvision, which brings another build of torch along, so it runs in an environment of its own
(`MECH_EKFAC_PYTHON`) that gets weights, tokens and ∇M as files (`ekfac_worker.py`). All in float32.

Cost: some 20 forwards and backwards of the sample, then about 3 of every distinct example; memory: two square matrices
per layer and one of its own size. Source: Grosse et al. 2023, George et al. 2018; kronfluence 1.0.1.
"""

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from mech_pipeline.attribution.estimators.ekfac_environment import interpreter_of, run_worker
from mech_pipeline.attribution.estimators.presentations import Presentations
from mech_pipeline.attribution.estimators.scores import UpdateScores
from mech_pipeline.progress import Emit
from mech_pipeline.spec.model import Model
from mech_pipeline.training.loop import Trainer
from mech_pipeline.training.update.optimizer import State


@dataclass(frozen=True)
class Settings:
    """How factors are fitted and applied.

    Attributes:
        sample: presentations that factors are fitted on.
        damping: λ, absolute; none: 0.1 times the mean eigenvalue of each layer.
        chunk: examples at once.
    """

    sample: int = 1024
    damping: float | None = None
    chunk: int = 32


@dataclass(frozen=True)
class EkfacScores:
    """Scores, and which layers they are of.

    Attributes:
        updates: of updates 0 … T − 1.
        layers: names of the linear layers that took part; nothing else did.
    """

    updates: list[UpdateScores]
    layers: tuple[str, ...]


def ekfac_scores(
    trainer: Trainer,
    state: State,
    gradients: Float[Tensor, "target parameter"],
    model: Model,
    settings: Settings | None = None,
    python: str | None = None,
    emit: Emit = lambda line: None,
) -> EkfacScores:
    """Scores of all updates before a state that training has (nearly) converged to.

    Args:
        gradients: ∇M(θ_T), one row per target.
        model: what `trainer.flat.model` was built from.
        python: interpreter of the environment with kronfluence; none: the variable MECH_EKFAC_PYTHON.
        emit: receives a line per stage.

    Raises:
        MechError: that environment is missing or incomplete, or the computation failed in it; no update was made.
    """
    settings = settings or Settings()
    interpreter = interpreter_of(python)
    presented = Presentations.before(trainer, state.step)
    with tempfile.TemporaryDirectory(prefix="mech-ekfac-") as name:
        folder = Path(name)
        named = {key: part.float() for key, part in trainer.flat.named(state.theta).items()}
        _save(folder / "weights.safetensors", named)
        rows = {
            f"{row}.{key}": p for row, g in enumerate(gradients.float()) for key, p in trainer.flat.named(g).items()
        }
        _save(folder / "gradients.safetensors", rows)
        tokens = {
            "sample": trainer.tokens(presented.sample(trainer.seed, settings.sample)),
            "examples": trainer.tokens(presented.distinct),
        }
        _save(folder / "tokens.safetensors", tokens)
        one = trainer.tokens(presented.distinct[:1])
        job = {
            "model": model.model_dump(mode="json"),
            "vocabulary": trainer.flat.model(one[:, :1]).shape[-1],
            "context": one.shape[1],
            "targets": len(gradients),
            **asdict(settings),
        }
        (folder / "job.json").write_text(json.dumps(job))
        run_worker(interpreter, folder, emit)
        products = load_file(folder / "scores.safetensors")["scores"]
        layers = tuple(json.loads((folder / "layers.json").read_text()))
    return EkfacScores(presented.spread(products / -len(presented.seen)), layers)


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)
