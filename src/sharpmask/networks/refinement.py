"""SharpMask's refinement: a window's encoding becomes a P x P mask in four modules that each double the resolution.

A module merges the mask encoding M (k channels) with skip features S of the trunk. Its last convolution over the pair
is linear, so conv(concat(S, M)) = conv_s(S) + conv_m(M) (SharpMask paper, section 3.2): in the refactored form the S
part runs once over a whole image and is cropped for each window, and only the M part runs for each window. The plain
form computes the same numbers from the same weights, window by window.

Shape letters: N windows, k channels, g cells along a window's side at stride 16, m side of the mask encoding
(g * 2^stage).
"""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.networks.layers import PaddedConv2d, symmetric_pad
from sharpmask.networks.specs import ModelSpec


class HorizontalNet(nn.Module):
    """Skip features of the trunk -> S part: three 3x3 convolutions, the last one linear."""

    def __init__(self, in_channels: int, inner: int, k: int) -> None:
        super().__init__()
        self.conv1 = PaddedConv2d(in_channels, inner, 3)
        self.conv2 = PaddedConv2d(inner, k, 3)
        self.merge = PaddedConv2d(k, k // 2, 3)

    def hidden(self, features: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(features))))

    def forward(self, features: Tensor) -> Tensor:
        return self.merge(self.hidden(features))


class VerticalNet(nn.Module):
    """Mask encoding -> M part: two 3x3 convolutions, the last one linear."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.conv1 = PaddedConv2d(k, k, 3)
        self.merge = PaddedConv2d(k, k // 2, 3)

    def hidden(self, mask: Tensor) -> Tensor:
        return F.relu(self.conv1(mask))

    def forward(self, mask: Tensor) -> Tensor:
        return self.merge(self.hidden(mask))


class Refinement(nn.Module):
    """The stack of refinement modules, k halved at each (capacity schedule b of the paper).

    Args:
        spec: sizes; `spec.upsampling` chooses how a module doubles the resolution.
        channels: trunk channels at strides 2, 4, 8, 16.
    """

    def __init__(self, spec: ModelSpec, channels: Sequence[int]) -> None:
        super().__init__()
        self.grid_side, self.k, self.upsampling = spec.grid_side, spec.refinement_width, spec.upsampling
        self.start = nn.Linear(spec.encoding, self.k * self.grid_side**2)
        widths = [self.k // 2**stage for stage in range(len(channels))]
        inner = [spec.horizontal_width] * (len(channels) - 1) + [spec.horizontal_width // 2]
        self.horizontal = nn.ModuleList(
            HorizontalNet(c, i, k) for c, i, k in zip(reversed(channels), inner, widths, strict=True)
        )
        self.vertical = nn.ModuleList(VerticalNet(k) for k in widths)
        self.output = PaddedConv2d(widths[-1] // 2, 1, 3)
        # The last stages have few channels, and one that falls below zero everywhere never learns again. So all of them
        # start above it, and the mask starts near a logit of 0, without a large first gradient to push them down.
        with torch.no_grad():
            for net in (*self.horizontal, *self.vertical):
                net.merge.weight.mul_(0.1)
                net.merge.bias.fill_(0.5)
            self.output.weight.mul_(0.1)

    def skips(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Trunk features at strides 2, 4, 8, 16 -> S parts, coarse to fine."""
        return tuple(net(f) for net, f in zip(self.horizontal, reversed(features), strict=True))

    def forward(self, encoding: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Refactored form: (N, E) and S parts cropped to the windows (N, k_i / 2, m, m) -> mask logits (N, P, P)."""
        mask = self._first(encoding)
        for net, skip in zip(self.vertical, skips, strict=True):
            mask = self._double(F.relu(net(mask) + skip))
        return self.output(mask).squeeze(1)

    def forward_plain(self, encoding: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Plain form: one convolution over the concatenated pair in every module; the same numbers, more work.

        `features` are trunk features of each window with its context, fine to coarse as the trunk gives them.
        """
        verticals, horizontals = cast(list[VerticalNet], self.vertical), cast(list[HorizontalNet], self.horizontal)
        mask = self._first(encoding)
        for vertical, horizontal, feature in zip(verticals, horizontals, reversed(features), strict=True):
            # Both are padded before they are joined: the S part sees its context, the M part has none.
            s = symmetric_pad(horizontal.hidden(feature), 1, 1, 1, 1)
            side = mask.shape[-1] + 2
            top = (s.shape[-1] - side) // 2
            s = s[..., top : top + side, top : top + side]
            pair = torch.cat([s, symmetric_pad(vertical.hidden(mask), 1, 1, 1, 1)], dim=1)
            weight = torch.cat([horizontal.merge.weight, vertical.merge.weight], dim=1)
            merged = F.conv2d(pair, weight, horizontal.merge.bias) + vertical.merge.bias[:, None, None]  # type: ignore[index]
            mask = self._double(F.relu(merged))
        return self.output(mask).squeeze(1)

    def _first(self, encoding: Tensor) -> Tensor:
        return self.start(encoding).view(-1, self.k, self.grid_side, self.grid_side)

    def _double(self, mask: Tensor) -> Tensor:
        if self.upsampling == "nearest":
            return F.interpolate(mask, scale_factor=2, mode="nearest")
        return F.interpolate(mask, scale_factor=2, mode="bilinear", align_corners=False)
