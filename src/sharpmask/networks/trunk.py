"""Trunks: an image in, features at strides 2, 4, 8 and 16 out (without the last for a trunk of 3 levels).

All convolutions pad symmetrically, so a patch with some context and a whole image give nearly the same features at the
same place. BatchNorm is folded into constants (see layers.py). Parameter names are those of torchvision (ResNet, VGG)
and timm (EfficientNet-Lite), so that public ImageNet weights load by name; `convert_batchnorm` turns such a file into
ours.

Shape letters: B images, C channels, H W size of the input, a multiple of the stride.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.errors import ConfigError
from sharpmask.networks.layers import FrozenAffineConv2d, PaddedConv2d
from sharpmask.networks.specs import ModelSpec

# Feature maps (B, C_i, H / 2^i, W / 2^i), i = 1 … levels: fine to coarse.
Features = tuple[Tensor, ...]


class Bottleneck(nn.Module):
    """ResNet bottleneck: 1x1 reduce, 3x3, 1x1 expand, with the stride on the first or the second of them."""

    def __init__(
        self, in_channels: int, width: int, *, stride: int, stride_on: str, project: bool, zeros: bool = False
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = FrozenAffineConv2d(in_channels, width, 1, stride=first)
        self.conv2 = FrozenAffineConv2d(width, width, 3, stride=second, zeros=zeros)
        self.conv3 = FrozenAffineConv2d(width, width * 4, 1)
        self.shortcut = FrozenAffineConv2d(in_channels, width * 4, 1, stride=stride) if project else None

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.shortcut is None else self.shortcut(x)
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return F.relu(self.conv3(x) + residual)


class ResNetTrunk(nn.Module):
    """ResNet-50 through its third stage (39 convolutions in the stages: D39), stride 16, 16 * width channels.

    With `levels` 3 it ends after the second stage (D21), stride 8, 8 * width channels.
    """

    mean = (0.485, 0.456, 0.406)
    std = (0.229, 0.224, 0.225)
    blocks = (3, 4, 6)

    def __init__(self, *, width: int = 64, stride_on: str = "3x3", levels: int = 4) -> None:
        super().__init__()
        self.conv1 = FrozenAffineConv2d(3, width, 7, stride=2)
        self.stages = [f"layer{stage}" for stage in range(1, levels)]
        channels = width
        for stage, name in enumerate(self.stages):
            inner = width * 2**stage
            layer = nn.Sequential()
            for block in range(self.blocks[stage]):
                stride = 2 if stage > 0 and block == 0 else 1
                layer.append(Bottleneck(channels, inner, stride=stride, stride_on=stride_on, project=block == 0))
                channels = inner * 4
            self.add_module(name, layer)
        self.channels = (width, width * 4, width * 8, width * 16)[:levels]

    def forward(self, x: Tensor) -> Features:
        features = [F.relu(self.conv1(x))]  # (B, 64, H/2, W/2)
        x = F.max_pool2d(features[0], 3, stride=2, padding=1)
        for name in self.stages:
            x = self.get_submodule(name)(x)  # (B, 256, H/4, W/4), (B, 512, H/8, W/8), (B, 1024, H/16, W/16)
            features.append(x)
        return tuple(features)


class VggTrunk(nn.Module):
    """VGG-A without its last pooling (8 convolutions: D8), stride 16, 8 * width channels (DeepMask paper, section 3.1).

    The features of a level are those before the next pooling. With `levels` 3 it ends one stage earlier. VGG-16, the
    trunk of Fast R-CNN, has other `convolutions`.
    """

    mean = ResNetTrunk.mean
    std = ResNetTrunk.std

    def __init__(self, *, width: int = 64, levels: int = 4, convolutions: tuple[int, ...] = (1, 1, 2, 2, 2)) -> None:
        super().__init__()
        widths = (width, width * 2, width * 4, width * 8, width * 8)[: levels + 1]
        self.features = nn.Sequential()  # numbered as torchvision's vgg11 and vgg16
        channels = 3
        for stage, out in enumerate(widths):
            if stage:
                self.features.append(nn.MaxPool2d(2))
            for _ in range(convolutions[stage]):
                conv = PaddedConv2d(channels, out, 3)
                nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # without BatchNorm the signal would fade
                nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
                self.features.extend((conv, nn.ReLU()))
                channels = out
        self.channels = widths[1:]

    def forward(self, x: Tensor) -> Features:
        features = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                features.append(x)
            x = layer(x)
        return (*features[1:], x)  # (B, 128, H/2, W/2), (B, 256, H/4, W/4), (B, 512, H/8, W/8), (B, 512, H/16, W/16)


def _relu6(x: Tensor) -> Tensor:
    """ReLU6 in the memory of a convolution's output, which nothing else reads: less to write, less to keep."""
    return F.relu6(x, inplace=True)


class SeparableBlock(nn.Module):
    """Depthwise and pointwise convolution: the first block of EfficientNet."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv_dw = FrozenAffineConv2d(in_channels, in_channels, kernel_size, groups=in_channels)
        self.conv_pw = FrozenAffineConv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_pw(_relu6(self.conv_dw(x)))


class InvertedResidual(nn.Module):
    """Expand six times, depthwise convolution, project back; no squeeze-and-excitation in the Lite family."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int, zeros: bool = False
    ) -> None:
        super().__init__()
        inner = in_channels * 6
        self.conv_pw = FrozenAffineConv2d(in_channels, inner, 1)
        self.conv_dw = FrozenAffineConv2d(
            inner, inner, kernel_size, stride=stride, groups=inner, tf_same=True, zeros=zeros
        )
        self.conv_pwl = FrozenAffineConv2d(inner, out_channels, 1)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_pwl(_relu6(self.conv_dw(_relu6(self.conv_pw(x)))))
        return x + y if self.residual else y


class EfficientNetLiteTrunk(nn.Module):
    """EfficientNet-Lite without its stages of stride 32, for CPUs (timm's `tf_efficientnet_lite*`)."""

    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3
    ends = (0, 1, 2, 4)  # the last stage of each stride
    # variant -> per stage (blocks, kernel, stride, channels)
    variants: ClassVar = {
        "efficientnet_lite0": ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112)),
        "efficientnet_lite2": ((1, 3, 1, 16), (3, 3, 2, 24), (3, 5, 2, 48), (4, 3, 2, 88), (4, 5, 1, 120)),
    }

    def __init__(self, variant: str, *, width: int = 64, levels: int = 4) -> None:
        super().__init__()
        stages = self.variants[variant][: self.ends[levels - 1] + 1]
        channels = 32 * width // 64
        self.conv_stem = FrozenAffineConv2d(3, channels, 3, stride=2, tf_same=True)
        self.blocks = nn.ModuleList()
        for stage, (count, kernel, stride, published) in enumerate(stages):
            out = published * width // 64
            if stage == 0:
                self.blocks.append(nn.Sequential(SeparableBlock(channels, out, kernel)))
            else:
                self.blocks.append(_inverted_stage(count, channels, out, kernel, stride))
            channels = out
        self.channels = tuple(stages[end][3] * width // 64 for end in self.ends[:levels])

    def forward(self, x: Tensor) -> Features:
        x = _relu6(self.conv_stem(x))
        outputs = []
        for blocks in self.blocks:
            x = blocks(x)
            outputs.append(x)
        return tuple(outputs[end] for end in self.ends if end < len(outputs))


class ResNetC5(nn.Sequential):
    """What follows `ResNetTrunk` in ResNet-50, its fourth stage: (B, 16 * width, H, W) -> (B, 32 * width, H/2, W/2).

    Padded with zeros, see `EfficientNetLiteC5`.
    """

    def __init__(self, *, width: int = 64, stride_on: str = "3x3") -> None:
        super().__init__()
        self.out_channels = 32 * width
        self.layer4 = nn.Sequential(
            Bottleneck(16 * width, 8 * width, stride=2, stride_on=stride_on, project=True, zeros=True),
            *(
                Bottleneck(32 * width, 8 * width, stride=1, stride_on=stride_on, project=False, zeros=True)
                for _ in range(2)
            ),
        )


class EfficientNetLiteC5(nn.Module):
    """What follows `EfficientNetLiteTrunk` in the classifier: the stages of stride 32 and the wide 1x1 convolution.

    Features (B, C, H, W) of stride 16 -> (B, 20 * width, H/2, W/2). Unlike the trunk's, its convolutions pad with
    zeros, as those did that the weights come from: at a side of 7 cells most of them reach over the border, and with
    mirrored cells there the classifier is wrong more often.
    """

    # variant -> per stage (blocks, kernel, stride, channels), numbered on from the trunk's
    variants: ClassVar = {
        "efficientnet_lite0": ((4, 5, 2, 192), (1, 3, 1, 320)),
        "efficientnet_lite2": ((5, 5, 2, 208), (1, 3, 1, 352)),
    }

    def __init__(self, variant: str, *, width: int = 64) -> None:
        super().__init__()
        before = EfficientNetLiteTrunk.variants[variant]
        channels = before[-1][3] * width // 64
        self.blocks = nn.ModuleDict()
        for number, (count, kernel, stride, published) in enumerate(self.variants[variant], len(before)):
            self.blocks[str(number)] = _inverted_stage(
                count, channels, published * width // 64, kernel, stride, zeros=True
            )
            channels = published * width // 64
        self.out_channels = 20 * width
        self.conv_head = FrozenAffineConv2d(channels, self.out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        for blocks in self.blocks.values():
            x = blocks(x)
        return _relu6(self.conv_head(x))


def _inverted_stage(
    count: int, in_channels: int, out_channels: int, kernel: int, stride: int, *, zeros: bool = False
) -> nn.Sequential:
    """A stage of EfficientNet-Lite, whose first block has the stride."""
    return nn.Sequential(
        *(
            InvertedResidual(
                in_channels if block == 0 else out_channels,
                out_channels,
                kernel,
                stride=stride if block == 0 else 1,
                zeros=zeros,
            )
            for block in range(count)
        )
    )


def build_c5(spec: ModelSpec) -> ResNetC5 | EfficientNetLiteC5:
    """The stages that follow a spec's trunk in the classifier that ImageNet weights are of.

    Raises:
        ConfigError: there are none, as after a VGG.
    """
    if spec.trunk == "resnet50":
        return ResNetC5(width=spec.trunk_width, stride_on=spec.stride_on)
    if spec.trunk in EfficientNetLiteC5.variants:
        return EfficientNetLiteC5(spec.trunk, width=spec.trunk_width)
    raise ConfigError(f"model '{spec.name}': no convolutions follow trunk '{spec.trunk}'")


def build_trunk(spec: ModelSpec) -> ResNetTrunk | VggTrunk | EfficientNetLiteTrunk:
    """The trunk that a spec names."""
    if spec.trunk == "resnet50":
        return ResNetTrunk(width=spec.trunk_width, stride_on=spec.stride_on, levels=spec.levels)
    if spec.trunk == "vgg_a":
        return VggTrunk(width=spec.trunk_width, levels=spec.levels)
    if spec.trunk == "vgg_16":
        return VggTrunk(width=spec.trunk_width, levels=spec.levels, convolutions=(2, 2, 3, 3, 3))
    return EfficientNetLiteTrunk(spec.trunk, width=spec.trunk_width, levels=spec.levels)


# Names of normalisation layers in the public files and of the convolution each of them follows, by block kind.
_RESNET_NORMS = {"bn1": "conv1", "bn2": "conv2", "bn3": "conv3", "downsample.1": "shortcut"}
_LITE_OUTER_NORMS = {"conv_stem": "bn1", "conv_head": "bn2"}
_LITE_NORMS = {
    "separable": {"bn1": "conv_dw", "bn2": "conv_pw"},
    "inverted": {"bn1": "conv_pw", "bn2": "conv_dw", "bn3": "conv_pwl"},
}


def convert_batchnorm(state: Mapping[str, Tensor], trunk: nn.Module) -> dict[str, Tensor]:
    """Translate a torchvision ResNet or VGG or timm EfficientNet-Lite state dict into this trunk's, or this C5's.

    Each BatchNorm is folded; VGG-A has none and is taken as it is.

    Layers that the module does not have (later stages, classifier) are left out.

    Raises:
        KeyError: a layer of it is not in `state`.
    """
    if isinstance(trunk, VggTrunk):
        return {name: state[name].float() for name in trunk.state_dict()}
    eps = 1e-5 if isinstance(trunk, ResNetTrunk | ResNetC5) else 1e-3
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
    if isinstance(trunk, ResNetTrunk | ResNetC5):
        norm = next(public for public, ours in _RESNET_NORMS.items() if ours == leaf)
        return prefix + ("downsample.0" if leaf == "shortcut" else leaf), prefix + norm
    if leaf in _LITE_OUTER_NORMS:
        return leaf, _LITE_OUTER_NORMS[leaf]
    kind = "separable" if isinstance(trunk.get_submodule(parent), SeparableBlock) else "inverted"
    norm = next(public for public, ours in _LITE_NORMS[kind].items() if ours == leaf)
    return prefix + leaf, prefix + norm
