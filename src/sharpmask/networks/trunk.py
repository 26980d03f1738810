"""Trunks: an image in, features at strides 2, 4, 8 and 16 out.

All convolutions pad symmetrically, so a patch with some context and a whole image give nearly the same features at the
same place. BatchNorm is folded into constants (see layers.py). Parameter names are those of torchvision (ResNet) and
timm (EfficientNet-Lite), so that public ImageNet weights load by name; `convert_batchnorm` turns such a file into ours.

Shape letters: B images, C channels, H W size of the input, a multiple of 16.
"""

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.networks.layers import FrozenAffineConv2d
from sharpmask.networks.specs import ModelSpec


class Features(NamedTuple):
    """Feature maps (B, C_i, H / stride, W / stride)."""

    stride2: Tensor
    stride4: Tensor
    stride8: Tensor
    stride16: Tensor


class Bottleneck(nn.Module):
    """ResNet bottleneck: 1x1 reduce, 3x3, 1x1 expand, with the stride on the first or the second of them."""

    def __init__(self, in_channels: int, width: int, *, stride: int, stride_on: str, project: bool) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = FrozenAffineConv2d(in_channels, width, 1, stride=first)
        self.conv2 = FrozenAffineConv2d(width, width, 3, stride=second)
        self.conv3 = FrozenAffineConv2d(width, width * 4, 1)
        self.shortcut = FrozenAffineConv2d(in_channels, width * 4, 1, stride=stride) if project else None

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.shortcut is None else self.shortcut(x)
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return F.relu(self.conv3(x) + residual)


class ResNetTrunk(nn.Module):
    """ResNet-50 through its third stage (39 convolutions in the stages: D39), stride 16, 16 * width channels."""

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    blocks = (3, 4, 6)

    def __init__(self, *, width: int = 64, stride_on: str = "3x3") -> None:
        super().__init__()
        self.conv1 = FrozenAffineConv2d(3, width, 7, stride=2)
        channels, layers = width, []
        for stage, count in enumerate(self.blocks):
            inner = width * 2**stage
            layers.append(nn.Sequential())
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                layers[-1].append(Bottleneck(channels, inner, stride=stride, stride_on=stride_on, project=block == 0))
                channels = inner * 4
        self.layer1, self.layer2, self.layer3 = layers
        self.channels = (width, width * 4, width * 8, width * 16)

    def forward(self, x: Tensor) -> Features:
        stride2 = F.relu(self.conv1(x))  # (B, 64, H/2, W/2)
        x = F.max_pool2d(stride2, 3, stride=2, padding=1)
        stride4 = self.layer1(x)  # (B, 256, H/4, W/4)
        stride8 = self.layer2(stride4)  # (B, 512, H/8, W/8)
        return Features(stride2, stride4, stride8, self.layer3(stride8))  # (B, 1024, H/16, W/16)


class SeparableBlock(nn.Module):
    """Depthwise and pointwise convolution: the first block of EfficientNet."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv_dw = FrozenAffineConv2d(in_channels, in_channels, kernel_size, groups=in_channels)
        self.conv_pw = FrozenAffineConv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_pw(F.relu6(self.conv_dw(x)))


class InvertedResidual(nn.Module):
    """Expand six times, depthwise convolution, project back; no squeeze-and-excitation in the Lite family."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int) -> None:
        super().__init__()
        inner = in_channels * 6
        self.conv_pw = FrozenAffineConv2d(in_channels, inner, 1)
        self.conv_dw = FrozenAffineConv2d(inner, inner, kernel_size, stride=stride, groups=inner, tf_same=True)
        self.conv_pwl = FrozenAffineConv2d(inner, out_channels, 1)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_pwl(F.relu6(self.conv_dw(F.relu6(self.conv_pw(x)))))
        return x + y if self.residual else y


class EfficientNetLiteTrunk(nn.Module):
    """EfficientNet-Lite without its stages of stride 32, for CPUs (timm's `tf_efficientnet_lite*`)."""

    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3
    # variant -> per stage (blocks, kernel, stride, channels)
    variants: ClassVar = {
        "efficientnet_lite0": ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112)),
        "efficientnet_lite2": ((1, 3, 1, 16), (3, 3, 2, 24), (3, 5, 2, 48), (4, 3, 2, 88), (4, 5, 1, 120)),
    }

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.conv_stem = FrozenAffineConv2d(3, 32, 3, stride=2, tf_same=True)
        self.blocks = nn.ModuleList()
        channels = 32
        for stage, (count, kernel, stride, out) in enumerate(self.variants[variant]):
            blocks = nn.Sequential()
            for block in range(count):
                if stage == 0:
                    blocks.append(SeparableBlock(channels, out, kernel))
                else:
                    blocks.append(InvertedResidual(channels, out, kernel, stride=stride if block == 0 else 1))
                channels = out
            self.blocks.append(blocks)
        widths = [stage[3] for stage in self.variants[variant]]
        self.channels = (widths[0], widths[1], widths[2], widths[4])

    def forward(self, x: Tensor) -> Features:
        stride2 = self.blocks[0](F.relu6(self.conv_stem(x)))
        stride4 = self.blocks[1](stride2)
        stride8 = self.blocks[2](stride4)
        return Features(stride2, stride4, stride8, self.blocks[4](self.blocks[3](stride8)))


def build_trunk(spec: ModelSpec) -> ResNetTrunk | EfficientNetLiteTrunk:
    """The trunk that a spec names."""
    if spec.trunk == "resnet50":
        return ResNetTrunk(width=spec.trunk_width, stride_on=spec.stride_on)
    return EfficientNetLiteTrunk(spec.trunk)


# Names of normalisation layers in the public files and of the convolution each of them follows, by block kind.
_RESNET_NORMS = {"bn1": "conv1", "bn2": "conv2", "bn3": "conv3", "downsample.1": "shortcut"}
_LITE_NORMS = {
    "separable": {"bn1": "conv_dw", "bn2": "conv_pw"},
    "inverted": {"bn1": "conv_pw", "bn2": "conv_dw", "bn3": "conv_pwl"},
}


def convert_batchnorm(state: Mapping[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """Translate a torchvision ResNet or timm EfficientNet-Lite state dict into this trunk's, folding each BatchNorm.

    Layers the trunk does not have (later stages, classifier) are left out.

    Raises:
        KeyError: a layer of the trunk is not in `state`.
    """
    eps = 1e-5 if isinstance(trunk, ResNetTrunk) else 1e-3
    converted: dict[str, Tensor] = {}
    for name, module in trunk.named_modules():
        if not isinstance(module, FrozenAffineConv2d):
            continue
        conv, norm = _public_names(name, trunk)
        converted[f"{name}.weight"] = state[f"{conv}.weight"].float()
        variance, mean = state[f"{norm}.running_var"].float(), state[f"{norm}.running_mean"].float()
        scale = state[f"{norm}.weight"].float() / torch.sqrt(variance + eps)
        converted[f"{name}.scale"] = scale
        converted[f"{name}.shift"] = state[f"{norm}.bias"].float() - mean * scale
    return converted


def _public_names(name: str, trunk: nn.Module) -> tuple[str, str]:
    """Our convolution's name -> (public convolution, public BatchNorm)."""
    parent, _, leaf = name.rpartition(".")
    prefix = f"{parent}." if parent else ""
    if isinstance(trunk, ResNetTrunk):
        norm = next(public for public, ours in _RESNET_NORMS.items() if ours == leaf)
        return prefix + ("downsample.0" if leaf == "shortcut" else leaf), prefix + norm
    if leaf == "conv_stem":
        return "conv_stem", "bn1"
    kind = "separable" if isinstance(trunk.get_submodule(parent), SeparableBlock) else "inverted"
    norm = next(public for public, ours in _LITE_NORMS[kind].items() if ours == leaf)
    return prefix + leaf, prefix + norm
