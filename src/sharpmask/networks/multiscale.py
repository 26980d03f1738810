"""The baseline of the SharpMask paper (figure 1b): every level of the trunk predicts a mask, and their mean counts.

There is no top-down path: the predictions are independent of one another, enlarged to the window's size and averaged.
The module takes the place of the refinement and has its interface, so that it is trained and run in the same way.

The paper describes it as the usual skip architecture and gives no layers; here the coarsest level predicts as DeepMask
does, from the window's encoding, and each finer one with a horizontal net that ends in a single channel. These are
convolutional and run once over an image, hence cannot know which window they are asked about.

Shape letters: N windows, E encoding length, g cells along a window's side in the coarsest features, M mask side.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.networks.heads import MaskHead
from sharpmask.networks.refinement import HorizontalNet
from sharpmask.networks.specs import ModelSpec


class MultiScale(nn.Module):
    """Independent mask predictions from each trunk level, averaged.

    Args:
        spec: sizes; the finer levels' nets have the widths of the horizontal nets of a refinement.
        channels: trunk channels, fine to coarse.

    Attributes:
        steps: for each of the skips, its cells for one cell of the coarsest features.
    """

    def __init__(self, spec: ModelSpec, channels: Sequence[int]) -> None:
        super().__init__()
        self.patch_size = spec.patch_size
        self.coarse = MaskHead(spec)
        self.fine = nn.ModuleList(
            HorizontalNet(c, spec.horizontal_width, spec.refinement_width, 1) for c in reversed(channels[:-1])
        )
        self.steps = tuple(2**stage for stage in range(1, len(channels)))

    def skips(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Trunk features, fine to coarse -> mask logits (B, 1, H_i, W_i) of all levels but the coarsest, then finer."""
        return tuple(net(f) for net, f in zip(self.fine, reversed(features[:-1]), strict=True))

    def forward(self, encoding: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """(N, E) and the skips cropped to the windows (N, 1, g * step, g * step) -> mask logits (N, P, P)."""
        size = (self.patch_size, self.patch_size)
        levels = [self.coarse(encoding)[:, None], *skips]
        enlarged = [F.interpolate(level, size=size, mode="bilinear", align_corners=False) for level in levels]
        return torch.stack(enlarged).mean(dim=0).squeeze(1)
