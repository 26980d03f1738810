"""A 3x3 convolution on a map of twice the resolution, computed at the single one.

Refinement doubles the mask's resolution and then convolves it. Both are linear, so they are one convolution: the four
pixels that a cell becomes each see 3x3 cells, with weights that the two steps give together. It writes four times the
channels at a quarter of the places, the enlarged map is never there, and it suits processors better, which work on
8 or 16 channels at a time while the finest maps have 4 and 2.

Symmetric padding fits: mirroring a map by one cell and enlarging it gives the enlarged map's own mirrored pixel.

Shape letters: N windows, C channels, m side of the map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.networks.layers import PaddedConv2d, symmetric_pad
from sharpmask.runtimes.folding import filled

# What the pixels -1, 0, 1 and 2 of an enlarged axis consist of, where cell 0 becomes pixels 0 and 1: shares of the
# cells -1, 0 and 1.
_SHARES = {
    "nearest": ((1, 0, 0), (0, 1, 0), (0, 1, 0), (0, 0, 1)),
    "bilinear": ((0.75, 0.25, 0), (0.25, 0.75, 0), (0, 0.75, 0.25), (0, 0.25, 0.75)),
}


class DoubledConv2d(nn.Conv2d):
    """`conv` of an enlarged map: (N, C, m, m) -> (N, out, 2m, 2m).

    Args:
        conv: 3x3, stride 1.
        upsampling: how the map is enlarged, "nearest" or "bilinear" (as `align_corners=False`).
    """

    pad = (1, 1, 1, 1)

    def __init__(self, conv: PaddedConv2d, upsampling: str) -> None:
        super().__init__(1, 1, 3)
        shares = torch.tensor(_SHARES[upsampling], dtype=torch.float64)
        # by pixel of the two that a cell becomes, tap of the convolution, and cell
        line = torch.stack([shares[pixel : pixel + 3] for pixel in (0, 1)])
        weight = torch.einsum("oitu,ptl,qum->opqilm", conv.weight.detach().double(), line, line)
        bias = torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
        # Channels in the order (o, p, q), as pixel_shuffle wants them.
        filled(self, weight.reshape(-1, conv.in_channels, 3, 3).float(), bias.repeat_interleave(4))

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(super().forward(symmetric_pad(x, *self.pad)), 2)
