"""8-bit arithmetic: ranges of activations, measured on photos, and the graph of a network that uses them.

Weights become signed numbers with a scale for each output channel, activations unsigned ones with one scale and zero
point for each map. The graph says so with pairs of QuantizeLinear and DequantizeLinear, which both ONNX Runtime and
OpenVINO turn into 8-bit convolutions. What is a small part of the work and would lose most stays in fp32: the fully
connected layers, the trunk's first convolutions, and the last one of the refinement.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from sharpmask.errors import ConfigError, ModelError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.layers import PaddedConv2d
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.networks.trunk import EfficientNetLiteTrunk
from sharpmask.runtimes.cells import DoubledConv2d
from sharpmask.runtimes.cpu import has_int8
from sharpmask.runtimes.onnx_builder import OnnxBuilder, steps_of
from sharpmask.runtimes.parts import FusedRefinement, Parts


@dataclass
class Range:
    """The least and the greatest number of a convolution's input and of its output, before an activation."""

    low: float = 0.0
    high: float = 0.0
    out_low: float = 0.0
    out_high: float = 0.0

    def see(self, x: Tensor, y: Tensor) -> None:
        (low, high), (out_low, out_high) = (map(float, torch.aminmax(part)) for part in (x, y))
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.out_low, self.out_high = min(self.out_low, out_low), max(self.out_high, out_high)


@dataclass(frozen=True)
class Calibration:
    """What a model file says of 8-bit arithmetic.

    Attributes:
        ranges: by names as in `convolutions`.
        photos: on how many they were measured.
        change: of AR against fp32, the worst of AR@10, AR@100 and AR@1000; None: not measured.
    """

    ranges: dict[str, Range]
    photos: int
    change: float | None = None

    def to_json(self) -> str:
        ranges = {
            name: [float(f"{value:.6g}") for value in asdict(seen).values()] for name, seen in self.ranges.items()
        }
        return json.dumps({"ranges": ranges, "photos": self.photos, "change": self.change})

    @classmethod
    def of(cls, network: DeepMask | SharpMask) -> "Calibration | None":
        """That of a network; None where it has none.

        Raises:
            ModelError: it cannot be read, or is another network's.
        """
        if network.int8 is None:
            return None
        try:
            read = json.loads(network.int8)
            ranges = {name: Range(*map(float, values)) for name, values in read["ranges"].items()}
            change = None if read["change"] is None else float(read["change"])
            return cls(ranges, int(read["photos"]), change)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelError(
                f"the model's notes on 8-bit arithmetic cannot be read ({error}): quantize it again"
            ) from None


@dataclass(frozen=True)
class _Scale:
    """value = scale * (code - zero), code in 0 … 255."""

    scale: float
    zero: int

    @classmethod
    def of(cls, low: float, high: float) -> "_Scale":
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-6) / 255
        return cls(scale, round(-low / scale))


def convolutions(parts: Parts) -> dict[str, nn.Conv2d]:
    """The convolutions that work in 8 bits, by name."""
    trunk = parts.dense.deepmask.trunk
    exact: list[nn.Module] = [next(module for module in trunk.modules() if isinstance(module, nn.Conv2d))]
    if isinstance(trunk, EfficientNetLiteTrunk):
        # These few channels carry all that follows: with the bundled model they made three quarters of the error, and
        # they are a small part of the work.
        for block in (trunk.blocks[0], cast(nn.Sequential, trunk.blocks[1])[0]):
            exact += block.modules()
    if isinstance(parts.decode, FusedRefinement):
        exact.append(parts.decode.output)
    left_out = set(map(id, exact))
    return {
        name: module
        for name, module in parts.named_modules()
        if isinstance(module, nn.Conv2d) and id(module) not in left_out
    }


@contextmanager
def watched(parts: Parts) -> Iterator[dict[str, Range]]:
    """Measure the ranges of all that the parts compute within the block."""
    ranges: dict[str, Range] = {}

    def see(name: str, x: Tensor, y: Tensor) -> None:
        ranges.setdefault(name, Range()).see(x, y)

    handles = [
        module.register_forward_hook(lambda module, inputs, output, name=name: see(name, inputs[0], output))
        for name, module in convolutions(parts).items()
    ]
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()


def builder_for(parts: Parts, network: DeepMask | SharpMask, precision: str, *, runtime: str) -> OnnxBuilder:
    """What writes the graphs of a network in that precision.

    Raises:
        ConfigError: int8, and the network was not quantized.
        MissingExtraError: the package onnx is not installed.
    """
    if precision != "int8":
        return OnnxBuilder(extra=runtime)
    calibration = Calibration.of(network)
    if calibration is None:
        raise ConfigError(
            f"{runtime}:int8: this model is not quantized; make one that is by "
            "`sharpmask quantize MODEL --images PHOTOS --output FILE.safetensors`"
        )
    return Int8Builder(parts, calibration.ranges, extra=runtime)


class Int8Builder(OnnxBuilder):
    """An `OnnxBuilder` whose convolutions work in 8 bits.

    Args:
        parts: whose graphs it will build.
        ranges: by names as in `convolutions`.
        weight_bits: 8, or 7 for processors that sum products of 8-bit numbers in 16 bits, which then overflow; None
            asks this processor.
    """

    def __init__(
        self, parts: Parts, ranges: Mapping[str, Range], *, extra: str = "onnx", weight_bits: int | None = None
    ) -> None:
        super().__init__(extra=extra)
        self._ranges = {id(module): ranges[name] for name, module in convolutions(parts).items() if name in ranges}
        self._largest = 2 ** ((weight_bits or (8 if has_int8() else 7)) - 1) - 1
        self._scales: dict[str, _Scale] = {}  # of the values that are known in 8 bits

    def conv(self, x: str, conv: nn.Conv2d, activation: str = "") -> str:
        known = self._ranges.get(id(conv))
        if known is None:
            return super().conv(x, conv, activation)
        if x not in self._scales:
            x = self._rounded(x, _Scale.of(known.low, known.high))
        scale = self._scales[x]
        if isinstance(conv, PaddedConv2d | DoubledConv2d) and max(conv.pad):
            x = self._rounded(self.pad(x, *conv.pad), scale)
        y = self.activate(self._conv8(x, scale, conv), activation)
        low, high = known.out_low, known.out_high
        if activation:
            low, high = 0.0, min(high, 6.0) if activation == "relu6" else high
        y = self._rounded(y, _Scale.of(low, high))
        return self._rounded(self.unfold(y), self._scales[y]) if isinstance(conv, DoubledConv2d) else y

    def _rounded(self, x: str, scale: _Scale) -> str:
        """The same value in steps of 8 bits."""
        numbers = self.constant(np.array(scale.scale, np.float32)), self.constant(np.array(scale.zero, np.uint8))
        y = self.add("DequantizeLinear", self.add("QuantizeLinear", x, *numbers), *numbers)
        self._scales[y] = scale
        return y

    def _conv8(self, x: str, scale: _Scale, conv: nn.Conv2d) -> str:
        weight = conv.weight.detach().double()
        steps = weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-12) / self._largest
        codes = torch.round(weight / steps[:, None, None, None]).to(torch.int8)
        inputs = [x, self._dequantised(codes, steps.float())]
        if conv.bias is not None:
            steps = steps * scale.scale
            codes = torch.round(conv.bias.detach().double() / steps).clamp(-(2.0**31) + 1, 2.0**31 - 1)
            inputs.append(self._dequantised(codes.to(torch.int32), steps.float()))
        return self.add("Conv", *inputs, kernel_shape=list(conv.kernel_size), **steps_of(conv))

    def _dequantised(self, codes: Tensor, steps: Tensor) -> str:
        zeros = torch.zeros(len(steps), dtype=codes.dtype)
        return self.add("DequantizeLinear", self.constant(codes), self.constant(steps), self.constant(zeros), axis=0)
