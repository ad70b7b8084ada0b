"""Which component every parameter belongs to, and choosing components by name."""

import pytest
import torch

from mech_pipeline.attribution.per_example.components import Components, components_of
from mech_pipeline.attribution.per_example.names_version import names_version
from mech_pipeline.errors import MechError
from mech_pipeline.spec.model import Model
from mech_pipeline.training.flat import FlatModel
from mech_pipeline.training.model import build_model
from tests.support.models import ARCHITECTURES, components


def neurons(trainer) -> Components:
    """Components by neuron."""
    return components(trainer, neurons=True)


@pytest.mark.parametrize("split", [components, neurons])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_belongs_to_exactly_one_component(make_trainer, architecture, split):
    trainer = make_trainer(ARCHITECTURES[architecture])
    parts = split(trainer)
    vector = torch.randn(len(trainer.flat.vector), dtype=torch.float64)
    assert len(parts.index) == len(vector)
    assert parts.sums(vector).sum() == pytest.approx(float(vector.sum()), rel=1e-12)
    assert set(parts.index.tolist()) == set(range(len(parts.names)))


def test_output_weights_split_by_input_slice(make_trainer):
    trainer = make_trainer()
    parts = components_of(trainer.flat, heads=2)
    index = trainer.flat.named(parts.index)["layers.0.attn.o.weight"]
    names = [[parts.names[int(i)] for i in row] for row in index]
    assert all(row == ["L0H0.O"] * 4 + ["L0H1.O"] * 4 for row in names)


READ, BIAS, WRITE = "weight that reads", "bias of it", "weight that writes"
MLP = {
    "mlp and layer norm": ("layers.0.mlp.fc_in.weight", "layers.0.mlp.fc_in.bias", "layers.0.mlp.fc_out.weight"),
    "gpt2": ("transformer.h.0.mlp.c_fc.weight", "transformer.h.0.mlp.c_fc.bias", "transformer.h.0.mlp.c_proj.weight"),
    "gpt_neox": (
        "gpt_neox.layers.0.mlp.dense_h_to_4h.weight",
        "gpt_neox.layers.0.mlp.dense_h_to_4h.bias",
        "gpt_neox.layers.0.mlp.dense_4h_to_h.weight",
    ),
    "llama with shared keys": ("model.layers.0.mlp.up_proj.weight", None, "model.layers.0.mlp.down_proj.weight"),
}


@pytest.mark.parametrize("architecture", MLP)
def test_a_neuron_owns_what_it_reads_with_and_what_it_writes_with(make_trainer, architecture):
    """Row or column 5, and entry 5 of the bias; in [out, in] and in Conv1D's [in, out]."""
    trainer = make_trainer(ARCHITECTURES[architecture])
    parts, named = neurons(trainer), trainer.flat.named
    read, bias, write = MLP[architecture]
    for names, part in ((filter(None, (read, bias)), "in"), ((write,), "out")):
        for name in names:
            owned = named(parts.index == parts.names.index(f"L0N5.{part}"))[name]
            width = 1 if owned.dim() == 1 else 8
            assert int(owned.sum()) == width, name
            conv = architecture == "gpt2" and owned.dim() == 2
            by_rows = (part == "in") != conv
            assert bool((owned[5] if by_rows else owned[:, 5]).all()), name


def test_splitting_by_neuron_changes_no_other_component(make_trainer):
    for architecture in ARCHITECTURES.values():
        trainer = make_trainer(architecture)
        coarse, fine = components(trainer), neurons(trainer)
        outside = [i for i, name in enumerate(coarse.names) if ".MLP." not in name]
        vector = torch.randn(len(trainer.flat.vector), dtype=torch.float64)
        for index in outside:
            same = fine.names.index(coarse.names[index])
            assert coarse.sums(vector)[index] == fine.sums(vector)[same]


def test_names_of_an_mlp_by_neuron(make_trainer):
    names = neurons(make_trainer(ARCHITECTURES["mlp and layer norm"])).names
    assert [name for name in names if "N" in name] == [f"L0N{n}.{part}" for part in ("in", "out") for n in range(12)]
    assert "L0.MLP.out_bias" in names
    gated = neurons(make_trainer(ARCHITECTURES["llama with shared keys"])).names
    assert {"L0N0.gate", "L0N0.in", "L0N0.out", "L1N11.gate"} <= set(gated)


@pytest.mark.parametrize("architecture", MLP)
def test_every_family_calls_the_weights_of_an_mlp_alike(make_trainer, architecture):
    """Those that read and their bias `in`, what writes and its bias `out`, a gate `gate`: nothing else."""
    trainer = make_trainer(ARCHITECTURES[architecture])
    parts, named = components(trainer), trainer.flat.named
    gate = ["gate"] * (architecture == "llama with shared keys")
    found = {name for name in parts.names if name.startswith("L0.MLP.")}
    assert found == {f"L0.MLP.{part}" for part in ["in", "out", *gate]}
    read, bias, write = MLP[architecture]
    for name, part in ((read, "in"), (bias, "in"), (write, "out")):
        if name is not None:
            assert set(named(parts.index)[name].flatten().tolist()) == {parts.names.index(f"L0.MLP.{part}")}


def test_only_renamed_components_make_stored_rows_stale():
    """Names of version 2 hold for native models with MLPs, and not where an MLP is split by neuron."""
    assert names_version(Model(d_mlp=32)) == ["component names 2"]
    assert names_version(Model(d_mlp=32), neurons=True) == []
    assert names_version(Model()) == []
    for family in ("gpt2", "gpt_neox", "llama"):
        assert names_version(Model(family=family, d_mlp=32)) == []


def test_a_norm_inside_an_mlp_is_a_component_of_its_own():
    spec = Model(layers=1, heads=2, d_model=8, d_mlp=6, activation="solu", normalization="layer_norm")
    model = build_model(spec, 13, 12, 0)
    model.layers[0].mlp.ln = torch.nn.LayerNorm(6)  # as in TransformerLens' SoLU models
    names = components_of(FlatModel(model), 2, neurons=True).names
    assert "L0.MLP.ln" in names
    assert "L0N5.out" in names


def test_patterns_choose_components(make_trainer):
    parts = components(make_trainer())
    chosen = [parts.names[i] for i in parts.matching(["L1H*.K", "embedding"])]
    assert sorted(chosen) == ["L1H0.K", "L1H1.K", "embedding"]


def test_a_pattern_that_fits_nothing_names_its_neighbours(make_trainer):
    with pytest.raises(MechError, match=r"no component fits 'L1H7\.K'.*L1H1\.K"):
        components(make_trainer()).matching(["L0H0.Q", "L1H7.K"])


@pytest.mark.parametrize("split", [components, neurons])
def test_sums_one_by_one_are_the_same_sums(make_trainer, split):
    """The way of a GPU."""
    trainer = make_trainer(ARCHITECTURES["mlp and layer norm"])
    parts = split(trainer)
    products = torch.randn(len(parts.index), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(parts.sums_one_by_one(products), parts.sums(products), rtol=1e-12, atol=1e-12)
