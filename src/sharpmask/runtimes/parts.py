"""The two pieces that a runtime computes: the dense run over an image, and the masks of windows that were cropped.

Everything between them (choosing windows, cropping) is done in PyTorch, whatever the runtime. Both are plain modules
with tensors in and out, made from a folded network (see folding.py); `onnx_graph.py` writes the same as ONNX.

Shape letters: B images, N windows, E encoding length, M mask side, m side of a crop, h w grid of windows.
"""

import itertools
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.heads import MaskHead
from sharpmask.networks.multiscale import MultiScale
from sharpmask.networks.refinement import Refinement, VerticalNet
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.runtimes.cells import CellConv2d, DoubledConv2d, to_cells, to_pixels, twice
from sharpmask.runtimes.folding import fold

# Cells are quicker where the last module's merged map has at most so many channels.
_NARROW = 4


class DensePart(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> score logits (B, h, w), encodings (B, E, h, w), skips, coarse to fine.

    Args:
        network: folded.
        in_cells: the finest skip is given in cells.
    """

    def __init__(self, network: DeepMask | SharpMask, *, in_cells: bool = False) -> None:
        super().__init__()
        self.deepmask, self.in_cells = network.deepmask, in_cells
        self.refinement = network.refinement if isinstance(network, SharpMask) else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.deepmask.trunk(images)
        encodings, score_logits = self.deepmask.windows(features[-1])
        skips = () if self.refinement is None else self.refinement.skips(features)
        if self.in_cells:
            skips = (*skips[:-1], to_cells(skips[-1]))
        return (score_logits, encodings, *skips)


class FusedRefinement(nn.Module):
    """Refinement whose modules double the resolution within the next module's first convolution; see cells.py.

    Args:
        refinement: folded.
        cells: keep the last module and its skip in cells, where it is narrow.

    Attributes:
        in_cells: whether they are.
    """

    def __init__(self, refinement: Refinement, *, cells: bool = False) -> None:
        super().__init__()
        self.start, self.k, self.grid_side = refinement.start, refinement.k, refinement.grid_side
        self.upsampling = refinement.upsampling
        verticals = cast(list[VerticalNet], list(refinement.vertical))
        # A module without 3x3 convolutions (an ablation of the paper's) has nothing to fuse with.
        self.enter = nn.ModuleList()
        for number, net in enumerate(verticals):
            if net.conv1 is None:
                self.enter.append(nn.Identity())
            else:
                self.enter.append(DoubledConv2d(net.conv1, self.upsampling) if number else net.conv1)
        self.merge = nn.ModuleList(net.merge for net in verticals)
        self.output: DoubledConv2d | CellConv2d = DoubledConv2d(refinement.output, self.upsampling)
        last = verticals[-1].merge
        self.in_cells = cells and isinstance(self.enter[-1], DoubledConv2d) and last.out_channels <= _NARROW
        if self.in_cells:
            self.merge[-1], self.output = CellConv2d(last), twice(self.output)

    def forward(self, encoding: Tensor, *skips: Tensor) -> Tensor:
        """(N, E) and S parts cropped to the windows (N, C_i, m, m) -> mask logits (N, M, M)."""
        mask = self.start(encoding).view(-1, self.k, self.grid_side, self.grid_side)
        mask = mask.contiguous(memory_format=torch.channels_last)
        for number, (enter, merge, skip) in enumerate(itertools.zip_longest(self.enter, self.merge, skips)):
            if isinstance(enter, nn.Identity):
                mask = mask if number == 0 else self._double(mask)
            else:
                mask = F.relu(enter(mask), inplace=True)
                if isinstance(enter, DoubledConv2d) and not isinstance(merge, CellConv2d):
                    mask = to_pixels(mask)
            mask = merge(mask)
            mask = F.relu(mask if skip is None else mask.add_(skip), inplace=True)
        return to_pixels(self.output(mask), 4 if self.in_cells else 2).squeeze(1)

    def _double(self, mask: Tensor) -> Tensor:
        align = {"mode": "nearest"} if self.upsampling == "nearest" else {"mode": "bilinear", "align_corners": False}
        return F.interpolate(mask, scale_factor=2, **align)


class PlainDecoder(nn.Module):
    """The mask head of DeepMask, or the multi-scale baseline, as they are: (N, E) and crops -> (N, M, M)."""

    def __init__(self, inner: MaskHead | MultiScale) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, encoding: Tensor, *skips: Tensor) -> Tensor:
        return self.inner(encoding, skips) if isinstance(self.inner, MultiScale) else self.inner(encoding)


class Parts(nn.Module):
    """Both pieces of a network, which is copied and stays as it is.

    Args:
        network: of any kind.
        cells: keep the finest maps in cells, as suits PyTorch; the other runtimes have memory layouts of their own.

    Attributes:
        spec: of the network; plain refinement has become refactored.
        steps: for each of the skips, its cells for one cell of the coarsest features.
    """

    def __init__(self, network: DeepMask | SharpMask, *, cells: bool = False) -> None:
        super().__init__()
        folded = fold(network)
        self.spec = folded.spec
        self.steps: Sequence[int] = ()
        self.decode: FusedRefinement | PlainDecoder
        skip_in_cells = False
        if isinstance(folded, SharpMask):
            self.steps = folded.refinement.steps
            refinement = folded.refinement
            if isinstance(refinement, Refinement):
                self.decode = FusedRefinement(refinement, cells=cells)
                skip_in_cells = self.decode.in_cells and len(self.steps) > 0
            else:
                self.decode = PlainDecoder(refinement)
        else:
            self.decode = PlainDecoder(folded.deepmask.mask_head)
        if skip_in_cells:
            self.steps = (*self.steps[:-1], self.steps[-1] // 2)
        self.dense = DensePart(folded, in_cells=skip_in_cells)
