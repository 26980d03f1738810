"""Trunks: strides, channels, and the public ImageNet files loaded exactly."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from sharpmask.errors import ConfigError
from sharpmask.networks.layers import FrozenAffineConv2d
from sharpmask.networks.specs import SPECS
from sharpmask.networks.trunk import ResNetC5, ResNetTrunk, build_c5, build_trunk, convert_batchnorm

FILES = {
    "sharpmask-resnet50-caffe": "resnet50_keras_caffe_trunk_layer1to3.fp16.safetensors",
    "sharpmask-lite0": "tf_efficientnet_lite0.fp16.safetensors",
    "sharpmask-lite2": "tf_efficientnet_lite2.fp16.safetensors",
}


@pytest.mark.parametrize("levels", [3, 4])
@pytest.mark.parametrize("name", [*FILES, "deepmask-vgg"])
def test_features_at_every_stride(name: str, levels: int) -> None:
    trunk = build_trunk(dataclasses.replace(SPECS[name], levels=levels)).eval()
    with torch.inference_mode():
        features = trunk(torch.rand(1, 3, 64, 96))
    for stride, feature, channels in zip((2, 4, 8, 16)[:levels], features, trunk.channels, strict=True):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)


def test_the_papers_depths() -> None:
    """D: convolutions of the stages that are kept, without the first layer and the shortcuts of the ResNet."""
    for name, depth in (("resnet50", 39), ("w112-p3-d21", 21), ("w160-p4-d8-vgg", 8)):
        trunk = build_trunk(SPECS[f"deepmask-{name}"])
        convolutions = [n for n, m in trunk.named_modules() if isinstance(m, torch.nn.Conv2d) and "shortcut" not in n]
        assert len([n for n in convolutions if n != "conv1"]) == depth


def test_vgg_takes_torchvisions_names_and_gives_its_features() -> None:
    """Against vgg11's layers written out (with zero padding, hence away from the border), later ones left out."""
    shapes = {0: (64, 3), 3: (128, 64), 6: (256, 128), 8: (256, 256), 11: (512, 256), 13: (512, 512), 16: (512, 512)}
    shapes[18] = (512, 512)
    state = {f"features.{i}.weight": torch.randn(*s, 3, 3) / (3 * s[1] ** 0.5) for i, s in shapes.items()}
    state |= {f"features.{i}.bias": torch.randn(s[0]) / 10 for i, s in shapes.items()}
    trunk = build_trunk(SPECS["deepmask-vgg"])
    trunk.load_state_dict(convert_batchnorm({**state, "classifier.0.bias": torch.ones(4096)}, trunk))
    x = torch.rand(1, 3, 192, 192)
    with torch.inference_mode():
        got = trunk(x)
        expected = []
        for i in range(20):
            if i in shapes:
                x = F.relu(F.conv2d(x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1))
            elif i in (2, 5, 10, 15):
                expected.append(x)
                x = F.max_pool2d(x, 2)
        expected = [*expected[1:], x]
    for feature, wanted in zip(got, expected, strict=True):
        edge = 5 if wanted.shape[-1] > 12 else 4
        inner = (..., slice(edge, -edge), slice(edge, -edge))
        torch.testing.assert_close(feature[inner], wanted[inner], rtol=1e-3, atol=1e-3)
    state.pop("features.18.bias")
    with pytest.raises(KeyError, match=r"features\.18\.bias"):
        convert_batchnorm(state, trunk)


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


@pytest.mark.parametrize("name", ["sharpmask-lite0", "sharpmask-lite2"])
def test_trunk_and_end_are_the_classifier(name: str, shared: Path) -> None:
    """With the file's last layer they tell photos of coco-mini apart that ImageNet has classes for."""
    state = load_file(shared / "weights" / FILES[name])
    trunk, c5 = build_trunk(SPECS[name]).eval(), build_c5(SPECS[name]).eval()
    for module in (trunk, c5):
        converted = convert_batchnorm(state, module)
        assert set(converted) == set(module.state_dict())
        module.load_state_dict(converted)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (trunk.mean, trunk.std))
    truth = json.loads((shared / "data/coco-mini/instances_val.json").read_text())
    # COCO's elephant, bear, broccoli, pizza, parking meter; ImageNet's numbers
    wanted = {22: {101, 385, 386}, 23: {294, 295, 296, 297}, 56: {937}, 59: {963}, 14: {704}}
    right = {True: 0, False: 0}  # with zeros at the border of C5, and with mirrored cells
    total = 0
    for record in truth["images"]:
        largest = max(
            (a for a in truth["annotations"] if a["image_id"] == record["id"]), key=lambda a: a["area"], default=None
        )
        if largest is None or largest["category_id"] not in wanted:
            continue
        x, y, w, h = (int(value) for value in largest["bbox"])
        with Image.open(shared / "data/coco-mini/val" / record["file_name"]) as photo:
            crop = photo.convert("RGB").crop((x, y, x + w, y + h)).resize((224, 224), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(crop).copy()).permute(2, 0, 1) / 255
        total += 1
        with torch.inference_mode():
            features = trunk(((pixels - mean) / std)[None])[-1]
            for zeros in right:
                for module in c5.modules():
                    if isinstance(module, FrozenAffineConv2d):
                        module.zeros = zeros
                described = c5(features).mean(dim=(2, 3))
                logits = described @ state["classifier.weight"].float().T + state["classifier.bias"].float()
                right[zeros] += int(logits.argmax()) in wanted[largest["category_id"]]
    assert total >= 8 and right[True] >= 0.8 * total, (right, total)
    assert right[False] <= right[True] - 2, (right, total)
    print(right, total)


def test_layer4_takes_torchvisions_names() -> None:
    """A state with torchvision's names, with BatchNorms that are not the identity, is folded into the convolutions."""
    c5 = ResNetC5(width=2)
    state: dict[str, torch.Tensor] = {}
    for block, (inputs, outputs) in enumerate(((32, 64), (64, 64), (64, 64))):
        shapes = {"conv1": (16, inputs, 1), "conv2": (16, 16, 3), "conv3": (outputs, 16, 1)}
        norms = {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3", "downsample.0": "downsample.1"}
        if block == 0:
            shapes["downsample.0"] = (outputs, inputs, 1)
        for conv, (out, inner, side) in shapes.items():
            prefix = f"layer4.{block}."
            state[f"{prefix}{conv}.weight"] = torch.randn(out, inner, side, side)
            for part, value in (("weight", 2.0), ("bias", 3.0), ("running_mean", 1.0), ("running_var", 4.0)):
                state[f"{prefix}{norms[conv]}.{part}"] = torch.full((out,), value)
    c5.load_state_dict(convert_batchnorm(state, c5))
    assert c5(torch.rand(1, 32, 14, 14)).shape == (1, 64, 7, 7)
    shortcut = c5.layer4[0].shortcut
    assert torch.equal(shortcut.weight, state["layer4.0.downsample.0.weight"])
    torch.testing.assert_close(shortcut.scale, torch.ones(64), rtol=1e-4, atol=0)  # 2 / sqrt(4)
    torch.testing.assert_close(shortcut.shift, torch.full((64,), 2.0), rtol=1e-4, atol=0)  # 3 - 1 * scale


def test_nothing_follows_a_vgg() -> None:
    with pytest.raises(ConfigError, match="vgg_a"):
        build_c5(SPECS["deepmask-vgg"])


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
        torch.testing.assert_close(got[0][..., 4:-4, 4:-4], y[..., 4:-4, 4:-4], rtol=1e-3, atol=1e-3)
        y = F.max_pool2d(y, 3, 2, 1)
        for block in range(3):
            p = f"layer1.{block}"
            z = F.relu(norm(F.conv2d(y, state[f"{p}.conv1.weight"]), f"{p}.bn1"))
            z = F.relu(norm(F.conv2d(z, state[f"{p}.conv2.weight"], padding=1), f"{p}.bn2"))
            z = norm(F.conv2d(z, state[f"{p}.conv3.weight"]), f"{p}.bn3")
            if block == 0:
                y = norm(F.conv2d(y, state[f"{p}.downsample.0.weight"]), f"{p}.downsample.1")
            y = F.relu(y + z)
    torch.testing.assert_close(got[1][..., 12:-12, 12:-12], y[..., 12:-12, 12:-12], rtol=1e-3, atol=1e-3)
