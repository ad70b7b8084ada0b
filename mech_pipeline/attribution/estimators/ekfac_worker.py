"""The part of `ekfac.py` that runs where kronfluence is installed: python -m …ekfac_worker FOLDER.

kronfluence takes a measurement, not a gradient. A mechanism is any function of the parameters, so its gradient V of a
layer is handed over as a measurement with just that derivative: the layer run on the unit vectors e_c,

    Σ_c ⟨V_c, W e_c + b⟩ + ⟨V_b − Σ_c V_c, W 0 + b⟩        with derivative V by W and V_b by b.
"""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from transformers.pytorch_utils import Conv1D

from mech_pipeline.spec.model import Model
from mech_pipeline.training.model import build_model, next_token_losses

_IN_A_LAYER = re.compile(r"\.\d+\.")


def main(folder: Path) -> None:
    """Reads the job, fits factors, writes ⟨∇ℓ_i, (G + λ)⁻¹ ∇M⟩ as [target, example]."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments

    job = json.loads((folder / "job.json").read_text())
    tokens = load_file(folder / "tokens.safetensors")
    model, layers = _model(folder, job)
    task = _task(layers, load_file(folder / "gradients.safetensors"), job["targets"])
    model = prepare_model(model, task)
    # Sampled labels come from the global generator: the same job gives the same factors.
    torch.manual_seed(0)
    on_cpu = not torch.cuda.is_available()
    analyzer = Analyzer("ekfac", model, task, cpu=on_cpu, disable_tqdm=True, output_dir=str(folder / "out"))
    print(f"ekfac: fitting factors of {len(layers)} layers on {len(tokens['sample'])} examples", flush=True)
    batches = {"per_device_batch_size": job["chunk"]}
    analyzer.fit_all_factors("factors", TensorDataset(tokens["sample"]), factor_args=FactorArguments(), **batches)
    print(f"ekfac: scoring {len(tokens['examples'])} examples for {job['targets']} targets", flush=True)
    analyzer.compute_pairwise_scores(
        "scores",
        factors_name="factors",
        query_dataset=TensorDataset(torch.arange(job["targets"])),
        train_dataset=TensorDataset(tokens["examples"]),
        per_device_query_batch_size=1,
        per_device_train_batch_size=job["chunk"],
        score_args=ScoreArguments(damping_factor=job["damping"]),
    )
    scores = analyzer.load_pairwise_scores("scores")["all_modules"]
    (folder / "layers.json").write_text(json.dumps(list(layers)))
    save_file({"scores": scores.contiguous()}, folder / "scores.safetensors")


def _model(folder: Path, job: Mapping[str, Any]) -> tuple[nn.Module, dict[str, bool]]:
    """The model with its weights, and its linear layers: name → whether the weight was stored as [in, out]."""
    spec = Model(**job["model"]).model_copy(update={"init_from": None})
    model = build_model(spec, job["vocabulary"], job["context"], seed=0)
    model.load_state_dict(load_file(folder / "weights.safetensors"), strict=False)  # tied weights come once
    layers: dict[str, bool] = {}
    for name, module in list(model.named_modules()):
        if not _IN_A_LAYER.search(name) or not isinstance(module, nn.Linear | Conv1D):
            continue
        layers[name] = isinstance(module, Conv1D)
        if isinstance(module, Conv1D):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, _linear(module))
    return model.eval(), layers


def _linear(module: Conv1D) -> nn.Linear:
    """The same layer with its weight as [out, in]."""
    same = nn.Linear(*module.weight.shape)
    same.weight.data.copy_(module.weight.T)
    same.bias.data.copy_(module.bias)
    return same


def _task(layers: Mapping[str, bool], gradients: Mapping[str, Tensor], targets: int) -> Any:
    """Losses and measurements in kronfluence's form."""
    from kronfluence.task import Task

    class Mechanisms(Task):
        def compute_train_loss(
            self, batch: tuple[Int[Tensor, "example token"]], model: nn.Module, sample: bool = False
        ) -> Tensor:
            (tokens,) = batch
            if not sample:
                return next_token_losses(model, tokens).mean(1).sum()
            # Token gradients with drawn labels are uncorrelated, so the square of this sum over √(T−1) is, in
            # expectation, the mean over tokens of their squares: the scale of G.
            logits = model(tokens[:, :-1])
            drawn = torch.distributions.Categorical(logits=logits.detach()).sample()
            losses = nn.functional.cross_entropy(logits.flatten(0, 1), drawn.flatten(), reduction="sum")
            return losses / (tokens.shape[1] - 1) ** 0.5

        def compute_measurement(self, batch: tuple[Int[Tensor, " query"]], model: nn.Module) -> Tensor:
            (targets_asked,) = batch
            parts = []
            for name, transposed in layers.items():
                weight = gradients[f"{int(targets_asked[0])}.{name}.weight"]
                bias = gradients.get(f"{int(targets_asked[0])}.{name}.bias")
                columns = weight if transposed else weight.T
                parts.append(_with_gradient(model.get_submodule(name), columns, bias))
            return torch.stack(parts).sum()

        def get_influence_tracked_modules(self) -> list[str]:
            return list(layers)

    return Mechanisms()


def _with_gradient(layer: nn.Module, columns: Float[Tensor, "in out"], bias: Float[Tensor, " out"] | None) -> Tensor:
    """A number whose derivative by the layer's weight is the transpose of `columns`, and by its bias `bias`."""
    device = next(layer.parameters()).device
    inputs = torch.eye(len(columns))
    wanted = columns
    if bias is not None:
        inputs = torch.cat([inputs, torch.zeros_like(inputs[:1])])
        wanted = torch.cat([columns, (bias - columns.sum(0))[None]])
    return (layer(inputs[None].to(device)) * wanted[None].to(device)).sum()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
