"""Head C of the SharpMask paper: one shared encoding of a window, a linear mask branch and a small score branch.

Shape letters: B patches, N windows, F feature channels, E encoding length, g feature cells along a window's side (10),
M mask side, h w grid of windows.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.networks.specs import ModelSpec


class Encoder(nn.Module):
    """Trunk features of a window -> its encoding: 1x1 convolution to F channels, ReLU, one g x g layer to E numbers."""

    def __init__(self, spec: ModelSpec, in_channels: int) -> None:
        super().__init__()
        self.grid_side = spec.grid_side
        self.reduce = nn.Conv2d(in_channels, spec.features, 1)
        self.encode = nn.Linear(spec.features * spec.grid_side**2, spec.encoding)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h + g - 1, w + g - 1) -> (B, E, h, w): the encoding of every window; h = w = 1 for patches."""
        x = F.relu(self.reduce(features))
        if x.shape[-2:] == (self.grid_side, self.grid_side):
            return self.encode(x.flatten(1))[:, :, None, None]  # the same numbers, as a matrix product
        weight = self.encode.weight.view(-1, x.shape[1], self.grid_side, self.grid_side)
        return F.conv2d(x, weight, self.encode.bias)


class MaskHead(nn.Module):
    """Encoding -> coarse mask logits, one linear layer."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.side = spec.mask_side
        self.linear = nn.Linear(spec.encoding, spec.mask_side**2)

    def forward(self, encoding: Tensor) -> Tensor:
        """(N, E) -> (N, M, M)."""
        return self.linear(encoding).view(-1, self.side, self.side)


class ScoreHead(nn.Module):
    """Encoding -> objectness logit, two layers with dropout."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.hidden = nn.Linear(spec.encoding, spec.score_hidden)
        self.score = nn.Linear(spec.score_hidden, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, encoding: Tensor) -> Tensor:
        """(..., E) -> (...)."""
        x = F.relu(self.hidden(self.dropout(encoding)))
        return self.score(self.dropout(x)).squeeze(-1)
