"""SharpMask's refinement: a window's encoding becomes a P x P mask in modules that each double the resolution.

A module merges the mask encoding M (k channels) with skip features S of the trunk. Its last convolution over the pair
is linear, so conv(concat(S, M)) = conv_s(S) + conv_m(M) (SharpMask paper, section 3.2): in the refactored form the S
part runs once over a whole image and is cropped for each window, and only the M part runs for each window. The plain
form computes the same numbers from the same weights, window by window.

Either part can be left out for the paper's ablations: without horizontal nets the modules are a deconvolution network,
without vertical convolutions they add skip features to an encoding that is only projected and enlarged. The paper does
not say what remains then of the M part; here it is a 1x1 convolution, which brings it to the module's width.

Shape letters: N windows, k channels, g cells along a window's side in the coarsest features (10), m side of the mask
encoding (g * 2^stage).
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.networks.layers import PaddedConv2d, crop_windows, symmetric_pad
from sharpmask.networks.specs import ModelSpec

# Cells beyond its own that a horizontal net sees on each side: three 3x3 convolutions.
REACH = 3


class Crops(NamedTuple):
    """Trunk features cut out around each window, with what lies beside it, for the plain form.

    Attributes:
        features: (N, C, m + more, m + more).
        rows, cols: (N,) int64, where in its crop each window of m x m cells begins.
    """

    features: Tensor
    rows: Tensor
    cols: Tensor


class HorizontalNet(nn.Module):
    """Skip features of the trunk -> S part (`out` channels): three 3x3 convolutions, the last one linear."""

    def __init__(self, in_channels: int, inner: int, k: int, out: int) -> None:
        super().__init__()
        self.conv1 = PaddedConv2d(in_channels, inner, 3)
        self.conv2 = PaddedConv2d(inner, k, 3)
        self.merge = PaddedConv2d(k, out, 3)

    def hidden(self, features: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(features))))

    def forward(self, features: Tensor) -> Tensor:
        return self.merge(self.hidden(features))


class VerticalNet(nn.Module):
    """Mask encoding -> M part (`out` channels): two 3x3 convolutions, or a single 1x1, the last one linear."""

    def __init__(self, k: int, out: int, *, spatial: bool = True) -> None:
        super().__init__()
        self.conv1 = PaddedConv2d(k, k, 3) if spatial else None
        self.merge = PaddedConv2d(k, out, 3 if spatial else 1)

    def hidden(self, mask: Tensor) -> Tensor:
        return mask if self.conv1 is None else F.relu(self.conv1(mask))

    def forward(self, mask: Tensor) -> Tensor:
        return self.merge(self.hidden(mask))


class Refinement(nn.Module):
    """The stack of refinement modules, one for each level of the trunk or for the coarser of them only.

    Args:
        spec: sizes; `spec.refinement_stages` is how many modules there are, `spec.schedule` the paper's capacity
            schedule (b) "halved" or (a) "constant", and `spec.upsampling` how a module doubles the resolution.
        channels: trunk channels, fine to coarse.

    Attributes:
        steps: for each of the skips, its cells for one cell of the coarsest features.
    """

    def __init__(self, spec: ModelSpec, channels: Sequence[int]) -> None:
        super().__init__()
        self.grid_side, self.k, self.upsampling = spec.grid_side, spec.refinement_width, spec.upsampling
        self.start = nn.Linear(spec.encoding, self.k * self.grid_side**2)
        channels = tuple(channels)[-(spec.refinement_stages or len(channels)) :]
        constant = spec.schedule == "constant"
        widths = [self.k if constant else max(1, self.k // 2**stage) for stage in range(len(channels) + 1)]
        inner = [spec.horizontal_width // (2 if stage == spec.levels - 1 else 1) for stage in range(len(channels))]
        sizes = zip(reversed(channels), inner, widths[:-1], widths[1:], strict=True)
        self.horizontal = nn.ModuleList(HorizontalNet(*size) for size in sizes if spec.horizontal)
        self.vertical = nn.ModuleList(
            VerticalNet(k, out, spatial=spec.vertical) for k, out in itertools.pairwise(widths)
        )
        if widths[-1] == 1:
            # Narrower than the published stack, its last channels may all be below zero everywhere at first and
            # would then never learn. What they see is never negative, so that averages of it keep them alive.
            for conv in self.modules():
                if isinstance(conv, PaddedConv2d) and conv.out_channels <= 2:
                    nn.init.uniform_(conv.weight, 0, 2 / conv.weight[0].numel())
                    nn.init.zeros_(cast(Tensor, conv.bias))
        self.output = PaddedConv2d(widths[-1], 1, 3)
        # The last stages have few channels, and one that falls below zero everywhere never learns again. So all of them
        # start above it, and the mask starts near a logit of 0, without a large first gradient to push them down.
        with torch.no_grad():
            for net in (*self.horizontal, *self.vertical):
                net.merge.weight.mul_(0.1)
                net.merge.bias.fill_(0.5)
            self.output.weight.mul_(0.1)
        self.steps = tuple(2**stage for stage in range(len(self.horizontal)))

    def skips(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Trunk features, fine to coarse -> S parts, coarse to fine; none without horizontal nets."""
        return tuple(net(f) for net, f in zip(self.horizontal, reversed(features), strict=False))

    def forward(self, encoding: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Refactored form: (N, E) and S parts cropped to the windows (N, C_i, m, m) -> mask logits (N, M, M)."""
        mask = self._first(encoding)
        for net, skip in itertools.zip_longest(self.vertical, skips):
            merged = net(mask) if skip is None else net(mask) + skip
            mask = self._double(F.relu(merged))
        return self.output(mask).squeeze(1)

    def forward_plain(self, encoding: Tensor, crops: Sequence[Crops]) -> Tensor:
        """Plain form: one convolution over the concatenated pair in every module; the same numbers, more work.

        `crops` are trunk features around each window, coarse to fine; none without horizontal nets.
        """
        verticals, horizontals = cast(list[VerticalNet], self.vertical), cast(list[HorizontalNet], self.horizontal)
        mask = self._first(encoding)
        for vertical, horizontal, crop in itertools.zip_longest(verticals, horizontals, crops):
            # Both are padded before they are joined: the S part sees its context, the M part has none.
            pair = symmetric_pad(vertical.hidden(mask), 1, 1, 1, 1)
            weight, bias = vertical.merge.weight, cast(Tensor, vertical.merge.bias)
            weight = F.pad(weight, (1, 1, 1, 1)) if weight.shape[-1] == 1 else weight
            if horizontal is not None:
                s = symmetric_pad(horizontal.hidden(crop.features), 1, 1, 1, 1)
                each = torch.arange(len(s), device=s.device)
                pair = torch.cat([crop_windows(s, each, crop.rows, crop.cols, side=pair.shape[-1]), pair], dim=1)
                weight = torch.cat([horizontal.merge.weight, weight], dim=1)
                bias = bias + cast(Tensor, horizontal.merge.bias)
            mask = self._double(F.relu(F.conv2d(pair, weight, bias)))
        return self.output(mask).squeeze(1)

    def _first(self, encoding: Tensor) -> Tensor:
        return self.start(encoding).view(-1, self.k, self.grid_side, self.grid_side)

    def _double(self, mask: Tensor) -> Tensor:
        if self.upsampling == "nearest":
            return F.interpolate(mask, scale_factor=2, mode="nearest")
        return F.interpolate(mask, scale_factor=2, mode="bilinear", align_corners=False)
