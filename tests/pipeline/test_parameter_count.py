"""The number of parameters, read from the head of a checkpoint's file."""

from mech_pipeline.pipeline.checkpoints import stored_parameter_count
from mech_pipeline.training.model import parameter_count as counted
from tests.support import tiny


def test_a_kept_checkpoint_tells_how_many_parameters_its_model_has(tmp_path, monkeypatch, local_store):
    tiny.write_text(tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = tiny.spec_of(model=tiny.TINY["model"] | {"d_mlp": 32, "normalization": "layer_norm"})
    assert stored_parameter_count(local_store, spec.run) is None
    tiny.train(local_store, spec)
    built = counted(spec.model, tiny.TINY["tokenizer"]["vocabulary"], tiny.TINY["data"]["context"])
    assert stored_parameter_count(local_store, spec.run) == built
    for file in tmp_path.rglob("*.safetensors"):
        file.chmod(0o644)
        file.unlink()
    assert stored_parameter_count(local_store, spec.run) is None, "a report of a damaged store goes without it"
