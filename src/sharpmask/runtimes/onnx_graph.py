"""The two parts of a network (see parts.py) as ONNX: the same weights, any image size, any number of windows."""

import itertools
from typing import cast

from torch import nn

from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.heads import MaskHead, ScoreHead
from sharpmask.networks.layers import PaddedConv2d
from sharpmask.networks.multiscale import MultiScale
from sharpmask.networks.refinement import HorizontalNet
from sharpmask.networks.trunk import (
    Bottleneck,
    EfficientNetLiteTrunk,
    InvertedResidual,
    ResNetTrunk,
    SeparableBlock,
    VggTrunk,
)
from sharpmask.runtimes.onnx_builder import OnnxBuilder
from sharpmask.runtimes.parts import DensePart, FusedRefinement, Parts, PlainDecoder

Outputs = dict[str, tuple[str, tuple[int | str, ...]]]  # name -> value and shape


def dense_graph(parts: Parts, builder: OnnxBuilder) -> bytes:
    """A model from "images" (B, 3, H, W) to "score_logits", "encodings" and "skip_0", … as `DensePart` gives them."""
    add = _Dense(builder)
    outputs = add.dense(parts.dense, "images")
    return builder.model({"images": ("B", 3, "H", "W")}, outputs)


def decode_graph(parts: Parts, builder: OnnxBuilder) -> bytes:
    """A model from "encodings" (N, E) and "skip_0", … (N, C_i, m_i, m_i) to "mask_logits" (N, M, M)."""
    spec, decoder = parts.spec, parts.decode
    sides = [spec.grid_side * step for step in parts.steps]
    inputs: dict[str, tuple[int | str, ...]] = {"encodings": ("N", spec.encoding)}
    for number, (side, channels) in enumerate(zip(sides, skip_channels(parts), strict=True)):
        inputs[f"skip_{number}"] = ("N", channels, side, side)
    names = list(inputs)
    if isinstance(decoder, FusedRefinement):
        logits = _refinement(builder, decoder, names[0], names[1:])
    else:
        logits = _plain_decoder(builder, decoder, names[0], names[1:], spec.patch_size, sides)
    return builder.model(inputs, {"mask_logits": (logits, ("N", "M", "M"))})


def skip_channels(parts: Parts) -> list[int]:
    """Channels of the skips, coarse to fine."""
    return [net.merge.out_channels for net in _horizontal_nets(parts.dense)]


def _horizontal_nets(part: DensePart) -> list[HorizontalNet]:
    """The nets that make the skips, coarse to fine."""
    refinement = part.refinement
    if refinement is None:
        return []
    nets = refinement.fine if isinstance(refinement, MultiScale) else refinement.horizontal
    return cast(list[HorizontalNet], list(nets))


class _Dense:
    """Adds the parts of a dense run to a graph."""

    def __init__(self, builder: OnnxBuilder) -> None:
        self.b = builder

    def dense(self, part: DensePart, images: str) -> Outputs:
        features = self.trunk(part.deepmask.trunk, images)
        encodings, scores = self.windows(part.deepmask, features[-1])
        length = part.deepmask.spec.encoding
        outputs: Outputs = {
            "score_logits": (scores, ("B", "h", "w")),
            "encodings": (encodings, ("B", length, "h", "w")),
        }
        if part.refinement is not None:
            levels = features[-2::-1] if isinstance(part.refinement, MultiScale) else features[::-1]
            for number, (net, feature) in enumerate(zip(_horizontal_nets(part), levels, strict=False)):
                shape = ("B", net.merge.out_channels, f"H_{number}", f"W_{number}")
                outputs[f"skip_{number}"] = (self.horizontal(net, feature), shape)
        return outputs

    def trunk(self, trunk: ResNetTrunk | VggTrunk | EfficientNetLiteTrunk, x: str) -> list[str]:
        if isinstance(trunk, ResNetTrunk):
            return self.resnet(trunk, x)
        return self.vgg(trunk, x) if isinstance(trunk, VggTrunk) else self.lite(trunk, x)

    def resnet(self, trunk: ResNetTrunk, x: str) -> list[str]:
        b = self.b
        features = [b.conv(x, trunk.conv1, "relu")]
        x = b.add("MaxPool", features[0], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
        for name in trunk.stages:
            for block in cast(nn.Sequential, trunk.get_submodule(name)):
                x = self.bottleneck(cast(Bottleneck, block), x)
            features.append(x)
        return features

    def bottleneck(self, block: Bottleneck, x: str) -> str:
        b = self.b
        residual = x if block.shortcut is None else b.conv(x, block.shortcut)
        y = b.conv(x, block.conv1, "relu")
        y = b.conv(y, block.conv2, "relu")
        return b.relu(b.add("Add", b.conv(y, block.conv3), residual))

    def vgg(self, trunk: VggTrunk, x: str) -> list[str]:
        features = []
        for layer in trunk.features:
            if isinstance(layer, nn.MaxPool2d):
                features.append(x)
                x = self.b.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
            elif isinstance(layer, PaddedConv2d):
                x = self.b.conv(x, layer, "relu")
        return [*features[1:], x]

    def lite(self, trunk: EfficientNetLiteTrunk, x: str) -> list[str]:
        x = self.b.conv(x, trunk.conv_stem, "relu6")
        outputs = []
        for blocks in trunk.blocks:
            for block in cast(nn.Sequential, blocks):
                x = (
                    self.separable(block, x)
                    if isinstance(block, SeparableBlock)
                    else self.inverted(cast(InvertedResidual, block), x)
                )
            outputs.append(x)
        return [outputs[end] for end in trunk.ends if end < len(outputs)]

    def separable(self, block: SeparableBlock, x: str) -> str:
        return self.b.conv(self.b.conv(x, block.conv_dw, "relu6"), block.conv_pw)

    def inverted(self, block: InvertedResidual, x: str) -> str:
        b = self.b
        y = b.conv(x, block.conv_pw, "relu6")
        y = b.conv(b.conv(y, block.conv_dw, "relu6"), block.conv_pwl)
        return b.add("Add", y, x) if block.residual else y

    def windows(self, deepmask: DeepMask, x: str) -> tuple[str, str]:
        """The encodings and the scores."""
        b, encoder = self.b, deepmask.encoder
        reduced = x if encoder.reduce is None else b.conv(x, encoder.reduce, "relu")
        y = reduced if encoder.own is None else b.conv(reduced, encoder.own, "relu")
        encodings = b.conv(y, cast(nn.Conv2d, encoder.encode))
        described = encodings
        if deepmask.score_encoder is not None:
            described = b.add("MaxPool", reduced, kernel_shape=[2, 2], strides=[1, 1])
            layer = deepmask.score_encoder.encode
            weight = layer.weight.view(layer.out_features, -1, layer.side, layer.side)
            described = b.relu(b.weights_conv(described, weight, layer.bias, dilations=[layer.step, layer.step]))
            if deepmask.score_encoder.grid_side % 2:  # a last odd row and column of cells is left out
                described = b.slice(b.slice(described, 0, -1, 2), 0, -1, 3)
        return encodings, self.score(deepmask.score_head, described)

    def score(self, head: ScoreHead, x: str) -> str:
        b = self.b
        if head.own is not None:
            x = b.relu(b.linear_channels(x, head.own))
        x = b.linear_channels(b.relu(b.linear_channels(x, head.hidden)), head.score)
        return b.add("Squeeze", x, b.constant([1]))

    def horizontal(self, net: HorizontalNet, x: str) -> str:
        b = self.b
        return b.conv(b.conv(b.conv(x, net.conv1, "relu"), net.conv2, "relu"), net.merge)


def _refinement(b: OnnxBuilder, decoder: FusedRefinement, encoding: str, skips: list[str]) -> str:
    x = b.reshape(b.linear(encoding, decoder.start), -1, decoder.k, decoder.grid_side, decoder.grid_side)
    for number, (enter, merge, skip) in enumerate(itertools.zip_longest(decoder.enter, decoder.merge, skips)):
        if isinstance(enter, nn.Identity):
            x = x if number == 0 else b.resize(x, 2, decoder.upsampling)
        else:
            x = b.conv(x, cast(nn.Conv2d, enter), "relu")
        x = b.conv(x, cast(nn.Conv2d, merge))
        x = b.relu(x if skip is None else b.add("Add", x, skip))
    return b.add("Squeeze", b.conv(x, decoder.output), b.constant([1]))


def _plain_decoder(
    b: OnnxBuilder, decoder: PlainDecoder, encoding: str, skips: list[str], patch_size: int, sides: list[int]
) -> str:
    if isinstance(decoder.inner, MaskHead):
        return b.reshape(b.linear(encoding, decoder.inner.linear), -1, decoder.inner.side, decoder.inner.side)
    coarse = decoder.inner.coarse
    levels = [b.reshape(b.linear(encoding, coarse.linear), -1, 1, coarse.side, coarse.side), *skips]
    levels = [
        b.resize(level, patch_size / side, "bilinear")
        for level, side in zip(levels, [coarse.side, *sides], strict=True)
    ]
    return b.add("Squeeze", b.add("Mean", *levels), b.constant([1]))
