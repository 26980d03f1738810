"""From the trunk's features of a window to its coarse mask and score: the heads the SharpMask paper compares.

All but the trunk is the head (SharpMask paper, section 4, "head architecture"; DeepMask paper, section 3.1). The mask
is made from an encoding of the window, by a low-rank pair of linear layers without a ReLU between them: all cells of
the window -> E numbers -> M x M logits. What the score shares with it grows from head to head:

- `original`: nothing. Mask: own 1x1 convolution to E channels, ReLU, then the linear pair. Score: own 2x2 max-pooling,
  fully connected layers to E and `score_hidden`, each with ReLU, then 1.
- `A`: the features. The mask's own 1x1 convolution is left out; the score branch is that of `original`.
- `B`: the encoding too, that is, the layer over the whole window. Score: own layers to E, `score_hidden` and 1.
- `C`: the same without the layer to E.

The papers give no sizes for A and B; here they have those of the original. The 1x1 convolution to F features, where
the spec has one, counts as part of the trunk (as in the paper's notation, F128) and is shared in every head. Dropout
of 0.5 before each of the last two layers of the score is the Torch release's.

Shape letters: B patches, N windows, F feature channels, E encoding length, g feature cells along a window's side (10),
M mask side, h w grid of windows.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.networks.layers import Dropout
from sharpmask.networks.specs import ModelSpec


class WindowLinear(nn.Linear):
    """One linear layer over all cells of a window, for a patch or for every window of a map.

    Args:
        channels: of the cells.
        side: cells along a window's side.
        outputs: numbers that come out for each window.
        step: distance between a window's cells in a map that holds several windows.
    """

    def __init__(self, channels: int, side: int, outputs: int, *, step: int = 1) -> None:
        super().__init__(channels * side**2, outputs)
        self.side, self.step = side, step

    def forward(self, cells: Tensor) -> Tensor:
        """(B, C, h + step (side - 1), w + step (side - 1)) -> (B, outputs, h, w); a patch (B, C, side, side) is one
        window whatever the step.
        """
        if cells.shape[-2:] == (self.side, self.side):
            return super().forward(cells.flatten(1))[:, :, None, None]  # the same numbers, as a matrix product
        weight = self.weight.view(-1, cells.shape[1], self.side, self.side)
        return F.conv2d(cells, weight, self.bias, dilation=self.step)


class Encoder(nn.Module):
    """Trunk features -> encodings of all windows, from which masks are made."""

    def __init__(self, spec: ModelSpec, in_channels: int) -> None:
        super().__init__()
        self.reduce = None if spec.features is None else nn.Conv2d(in_channels, spec.features, 1)
        self.channels = channels = spec.features or in_channels
        self.own = None
        if spec.head == "original":
            self.own = nn.Conv2d(channels, spec.encoding, 1)
            channels = spec.encoding
        self.encode = WindowLinear(channels, spec.grid_side, spec.encoding)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h + g - 1, w + g - 1) -> (B, E, h, w): the encoding of every window; h = w = 1 for patches."""
        return self.encode_reduced(self.reduced(features))

    def reduced(self, features: Tensor) -> Tensor:
        """The features that mask and score start from: (B, C, H, W) -> (B, F, H, W)."""
        return features if self.reduce is None else F.relu(self.reduce(features))

    def encode_reduced(self, features: Tensor) -> Tensor:
        """(B, F, h + g - 1, w + g - 1) -> (B, E, h, w)."""
        return self.encode(features if self.own is None else F.relu(self.own(features)))


class PooledEncoder(nn.Module):
    """The score's own description of a window in the heads `original` and `A`: 2x2 max-pooling, one layer, ReLU.

    A last odd row and column of cells is left out, as pooling does.
    """

    def __init__(self, spec: ModelSpec, in_channels: int) -> None:
        super().__init__()
        self.grid_side = spec.grid_side
        self.encode = WindowLinear(in_channels, spec.grid_side // 2, spec.encoding, step=2)

    def forward(self, features: Tensor) -> Tensor:
        """(B, F, h + g - 1, w + g - 1) -> (B, E, h, w)."""
        h, w = (size - self.grid_side + 1 for size in features.shape[-2:])
        # Windows begin at even and at odd cells, so that a map of them is pooled at every cell.
        pooled = F.max_pool2d(features, 2, stride=2 if h == w == 1 else 1)
        return F.relu(self.encode(pooled)[..., :h, :w])


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
    """Description of a window -> objectness logit, two layers with dropout, three in head B."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.own = nn.Linear(spec.encoding, spec.encoding) if spec.head == "B" else None
        self.hidden = nn.Linear(spec.encoding, spec.score_hidden)
        self.score = nn.Linear(spec.score_hidden, 1)
        self.dropout = Dropout(0.5)

    def forward(self, encoding: Tensor) -> Tensor:
        """(..., E) -> (...)."""
        if self.own is not None:
            encoding = F.relu(self.own(encoding))
        x = F.relu(self.hidden(self.dropout(encoding)))
        return self.score(self.dropout(x)).squeeze(-1)
