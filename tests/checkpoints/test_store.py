"""Model files: round trips, DeepMask out of SharpMask, damage."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sharpmask.checkpoints.store import load_network, load_trunk, read_safetensors, save_network
from sharpmask.errors import ConfigError, ModelError
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import SPECS, ModelSpec


@pytest.mark.parametrize("name", sorted(name for name in SPECS if not name.endswith("-caffe")))
def test_round_trip(name: str, tmp_path: Path, small: Callable[[ModelSpec], ModelSpec]) -> None:
    spec = small(SPECS[name])
    network = build_network(spec).eval()
    save_network(network, tmp_path / "m.safetensors", dtype=torch.float32)
    loaded = load_network(tmp_path / "m.safetensors")
    assert loaded.spec == spec and not loaded.training
    side = spec.patch_size + 2 * spec.context
    patches = torch.rand(1, 3, side, side)
    with torch.inference_mode():
        for a, b in zip(network(patches), loaded(patches), strict=True):
            assert torch.equal(a, b)


def test_half_precision_halves_the_file(tmp_path: Path, tiny_spec: ModelSpec) -> None:
    network = build_network(tiny_spec)
    save_network(network, tmp_path / "half.safetensors", notes={"licence": "Apache-2.0"})
    save_network(network, tmp_path / "full.safetensors", dtype=torch.float32)
    half, metadata = read_safetensors(tmp_path / "half.safetensors")
    assert metadata["licence"] == "Apache-2.0"
    assert {t.dtype for t in half.values() if t.ndim > 1} == {torch.float16}
    assert {t.dtype for t in half.values() if t.ndim == 1} == {torch.float32}
    loaded = load_network(tmp_path / "half.safetensors")
    assert {t.dtype for t in loaded.state_dict().values()} == {torch.float32}


def test_crop_first_is_kept(tmp_path: Path, tiny_spec: ModelSpec) -> None:
    save_network(SharpMask(tiny_spec, crop_first=True), tmp_path / "m.safetensors")
    loaded = load_network(tmp_path / "m.safetensors")
    assert isinstance(loaded, SharpMask) and loaded.crop_first


def test_bad_files(tmp_path: Path, tiny_spec: ModelSpec) -> None:
    with pytest.raises(ModelError, match="no weights file"):
        load_network(tmp_path / "none.safetensors")
    with pytest.raises(ConfigError, match="neither a bundled model"):
        load_network("sharpmusk")
    with pytest.raises(ConfigError, match="no weights are bundled for 'sharpmask-resnet50'"):
        load_network("sharpmask-resnet50")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="not written by sharpmask"):
        load_network(tmp_path / "other.safetensors")
    save_network(build_network(tiny_spec), tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load_network(tmp_path / "cut.safetensors")
    tensors, metadata = read_safetensors(tmp_path / "m.safetensors")
    tensors.pop("refinement.output.bias")
    save_file(tensors, tmp_path / "less.safetensors", metadata=metadata)
    with pytest.raises(ModelError, match=r"refinement\.output\.bias is missing"):
        load_network(tmp_path / "less.safetensors")
    metadata["spec"] = '{"name": "x", "unheard_of": 1}'
    save_file(tensors, tmp_path / "spec.safetensors", metadata=metadata)
    with pytest.raises(ModelError, match="does not know"):
        load_network(tmp_path / "spec.safetensors")


def test_trunk_of_another_kind(shared: Path) -> None:
    lite = build_network(SPECS["sharpmask-lite0"])
    with pytest.raises(ModelError, match="not an ImageNet file of trunk 'efficientnet_lite0'"):
        load_trunk(lite, shared / "weights" / "resnet50_keras_caffe_trunk_layer1to3.fp16.safetensors")
    load_trunk(lite, shared / "weights" / "tf_efficientnet_lite0.fp16.safetensors")
    assert lite.deepmask.trunk.conv_stem.scale.std() > 0


def test_trunk_of_a_trained_model(tmp_path: Path, tiny_spec: ModelSpec) -> None:
    trained = build_network(tiny_spec)
    save_network(trained, tmp_path / "m.safetensors", dtype=torch.float32)
    fresh = build_network(dataclasses.replace(tiny_spec, head="A", refinement=None))
    load_trunk(fresh, tmp_path / "m.safetensors")
    for name, tensor in fresh.deepmask.trunk.state_dict().items():
        assert torch.equal(tensor, trained.deepmask.trunk.state_dict()[name])
    # The stride's place shows in no shape.
    with pytest.raises(ModelError, match=r"m\.safetensors has another trunk: .*3x3 convolutions instead of .*1x1"):
        load_trunk(build_network(dataclasses.replace(tiny_spec, stride_on="1x1")), tmp_path / "m.safetensors")
    lite = build_network(SPECS["deepmask-lite0-head-b"])
    load_trunk(lite, "deepmask-lite0")
    assert lite.deepmask.trunk.conv_stem.scale.std() > 0
