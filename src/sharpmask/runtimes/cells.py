"""The refinement's 3x3 convolutions on maps in cells of 2x2 pixels, whose pixels are channels.

Two things make the finest maps dear, which have 4, 2 and 1 channels for each of a thousand windows. They are enlarged
between convolutions, and processors compute 8 or 16 channels at a time, so that most of their width is idle. In cells
there are four times the channels at a quarter of the places, and both are linear maps of cells again:

- Doubling the resolution and then convolving: the four pixels that a cell becomes each see 3x3 cells, with weights that
  the two steps give together. The enlarged map is never there.
- Convolving: a 3x3 convolution of pixels is one of cells. Three quarters of its weights are zero, and it is still
  quicker where channels are few.

Shape letters: N windows, C channels, m cells along a side. The channels of a map in cells are ordered by row in the
cell, column in the cell, channel: so the pixels of a row lie side by side in memory when channels come last.
"""

import itertools

import torch
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
    """`conv` of an enlarged map, in cells: (N, C, m, m) -> (N, 4 out, m, m), which are 2m x 2m pixels.

    Symmetric padding fits: mirroring a map by one cell and enlarging it gives the enlarged map's own mirrored pixel.

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
        weight = torch.einsum("oitu,ptl,qum->pqoilm", conv.weight.detach().double(), line, line)
        filled(self, weight.reshape(-1, conv.in_channels, 3, 3).float(), _bias(conv).repeat(4))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(symmetric_pad(x, *self.pad))


class CellConv2d(nn.Conv2d):
    """`conv`, 3x3 with symmetric padding, of a map in cells: (N, 4C, m, m) -> (N, 4 out, m, m)."""

    swap_rows: Tensor
    swap_cols: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__(1, 1, 3)
        # By pixel of the cell computed, tap of the convolution, pixel of a cell seen, and which cell.
        line = torch.zeros(2, 3, 2, 3)
        for pixel, tap in itertools.product(range(2), range(3)):
            cell, seen = divmod(pixel + tap - 1, 2)
            line[pixel, tap, seen, cell + 1] = 1
        weight = torch.einsum("oitu,ptrl,qusm->pqorsilm", conv.weight.detach(), line, line)
        filled(self, weight.reshape(4 * conv.out_channels, 4 * conv.in_channels, 3, 3), _bias(conv).repeat(4))
        places = torch.arange(4 * conv.in_channels).view(2, 2, -1)
        self.register_buffer("swap_rows", places.flip(0).flatten(), persistent=False)
        self.register_buffer("swap_cols", places.flip(1).flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        # The pixel beyond the edge is the one at the edge: in a cell beyond, pixels lie the other way round.
        x = symmetric_pad(x, 1, 1, 1, 1)
        for edge in (0, -1):
            x[:, :, edge] = x[:, :, edge].index_select(1, self.swap_rows)
            x[..., edge] = x[..., edge].index_select(1, self.swap_cols)
        return super().forward(x)


def twice(doubled: DoubledConv2d) -> CellConv2d:
    """The same of a map that is in cells itself: (N, 4C, m, m) -> (N, 16 out, m, m), in cells of 4x4 pixels."""
    conv = CellConv2d(doubled)
    out = doubled.out_channels // 4
    # Rows and columns of the pixel in the old cell, then of its four: to rows and columns among sixteen.
    order = torch.arange(16 * out).view(2, 2, 2, 2, out).permute(0, 2, 1, 3, 4).flatten()
    return filled(conv, conv.weight[order], _bias(conv)[order])


def to_pixels(x: Tensor, side: int = 2) -> Tensor:
    """The pixels of a map in cells of side x side: (N, C side², m, m) -> (N, C, side m, side m), channels last."""
    n, channels, height, width = x.shape
    channels //= side**2
    rows = _wide(x.permute(0, 2, 3, 1).reshape(n, height, width, side, side * channels))
    rows = rows.transpose(2, 3).contiguous().view(x.dtype)
    return rows.view(n, side * height, side * width, channels).permute(0, 3, 1, 2)


def to_cells(x: Tensor, side: int = 2) -> Tensor:
    """The reverse of `to_pixels`."""
    n, channels, height, width = x.shape
    rows = _wide(x.permute(0, 2, 3, 1).reshape(n, height // side, side, width // side, side * channels))
    rows = rows.transpose(2, 3).contiguous().view(x.dtype)
    return rows.view(n, height // side, width // side, side**2 * channels).permute(0, 3, 1, 2)


def _wide(x: Tensor) -> Tensor:
    """Numbers that lie side by side and move together as one wide number: fewer and larger pieces to move."""
    size = x.shape[-1] * x.element_size()
    if size % 8:
        return x
    return x.contiguous().view(torch.complex128 if size % 16 == 0 else torch.float64)


def _bias(conv: nn.Conv2d) -> Tensor:
    return torch.zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()
