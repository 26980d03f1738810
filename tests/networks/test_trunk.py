"""Trunks: strides, channels, and the public ImageNet files loaded exactly."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from sharpmask.networks.specs import SPECS
from sharpmask.networks.trunk import ResNetTrunk, build_trunk, convert_batchnorm

FILES = {
    "sharpmask-resnet50-caffe": "resnet50_keras_caffe_trunk_layer1to3.fp16.safetensors",
    "sharpmask-lite0": "tf_efficientnet_lite0.fp16.safetensors",
    "sharpmask-lite2": "tf_efficientnet_lite2.fp16.safetensors",
}


@pytest.mark.parametrize("name", FILES)
def test_features_at_four_strides(name: str) -> None:
    trunk = build_trunk(SPECS[name]).eval()
    with torch.inference_mode():
        features = trunk(torch.rand(1, 3, 64, 96))
    for stride, feature, channels in zip((2, 4, 8, 16), features, trunk.channels, strict=True):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize("stride_on", ["1x1", "3x3"])
def test_stride_placement(stride_on: str) -> None:
    block = ResNetTrunk(width=4, stride_on=stride_on).layer2[0]
    strides = block.conv1.stride[0], block.conv2.stride[0]
    assert strides == ((2, 1) if stride_on == "1x1" else (1, 2))


@pytest.mark.parametrize("name", FILES)
def test_public_weights_fill_every_layer(name: str, shared: Path) -> None:
    trunk = build_trunk(SPECS[name])
    state = load_file(shared / "weights" / FILES[name])
    converted = convert_batchnorm(state, trunk)
    assert set(converted) == set(trunk.state_dict())
    trunk.load_state_dict(converted)


def test_missing_layer_is_named(shared: Path) -> None:
    state = load_file(shared / "weights" / FILES["sharpmask-lite0"])
    state.pop("blocks.2.0.conv_dw.weight")
    with pytest.raises(KeyError, match=r"blocks\.2\.0\.conv_dw"):
        convert_batchnorm(state, build_trunk(SPECS["sharpmask-lite0"]))


def test_resnet_equals_plain_functional_form(shared: Path) -> None:
    """The first stage written out with zero-padded PyTorch functions agrees away from the border."""
    state = {k: v.float() for k, v in load_file(shared / "weights" / FILES["sharpmask-resnet50-caffe"]).items()}
    trunk = build_trunk(SPECS["sharpmask-resnet50-caffe"]).eval()
    trunk.load_state_dict(convert_batchnorm(state, trunk))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        values = (state[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *values, eps=1e-5)

    x = torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        got = trunk(x)
        y = F.relu(norm(F.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1"))
        torch.testing.assert_close(got.stride2[..., 4:-4, 4:-4], y[..., 4:-4, 4:-4], rtol=1e-3, atol=1e-3)
        y = F.max_pool2d(y, 3, 2, 1)
        for block in range(3):
            p = f"layer1.{block}"
            z = F.relu(norm(F.conv2d(y, state[f"{p}.conv1.weight"]), f"{p}.bn1"))
            z = F.relu(norm(F.conv2d(z, state[f"{p}.conv2.weight"], padding=1), f"{p}.bn2"))
            z = norm(F.conv2d(z, state[f"{p}.conv3.weight"]), f"{p}.bn3")
            if block == 0:
                y = norm(F.conv2d(y, state[f"{p}.downsample.0.weight"]), f"{p}.downsample.1")
            y = F.relu(y + z)
    torch.testing.assert_close(got.stride4[..., 12:-12, 12:-12], y[..., 12:-12, 12:-12], rtol=1e-3, atol=1e-3)
