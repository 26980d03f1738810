"""SharpMask: DeepMask's encoding and score with a refined, full-resolution mask.

Shape letters: B patches or images, N windows, P patch side (160), M mask side (P, or half of it for each refinement
module left out), E encoding length, m side of a crop at one stage.
"""

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sharpmask.networks.deepmask import DeepMask, DenseOutput, PatchOutput
from sharpmask.networks.layers import crop_centre, crop_windows
from sharpmask.networks.multiscale import MultiScale
from sharpmask.networks.refinement import REACH, Crops, Refinement
from sharpmask.networks.specs import ModelSpec
from sharpmask.networks.trunk import Features


class SharpMask(nn.Module):
    """DeepMask with refinement on top; stage 2 of training changes `refinement` only.

    Args:
        spec: the architecture, with `spec.refinement` set.
        crop_first: crop the skip features to the window before the horizontal nets in patch mode, as the Torch release
            does. The default crops after them, as whole-image mode does.
    """

    int8: str | None = None  # what its file says of 8-bit arithmetic, see runtimes/int8.py

    def __init__(self, spec: ModelSpec, *, crop_first: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.crop_first = crop_first
        self.deepmask = DeepMask(dataclasses.replace(spec, refinement=None))
        kind = MultiScale if spec.refinement == "multiscale" else Refinement
        self.refinement = kind(spec, self.deepmask.trunk.channels)

    def forward(self, patches: Tensor) -> PatchOutput:
        """Patches (B, 3, P + 2 context, P + 2 context) -> mask logits (B, M, M), score logits (B,)."""
        features = self.deepmask.features(patches)
        encoding, score_logits = self.deepmask.patch_windows(features)
        return PatchOutput(self.refine_patches(encoding, features), score_logits)

    def refine_patches(self, encoding: Tensor, features: Features) -> Tensor:
        """Refined mask logits (B, M, M) from patch encodings and trunk features."""
        if self.crop_first:
            features = tuple(crop_centre(f, self.spec.patch_size // 2**i) for i, f in enumerate(features, start=1))
        sides = [self.spec.grid_side * step for step in self.refinement.steps]
        skips = self.skips(features)
        if self.plain is not None:
            return self.plain.forward_plain(
                encoding, [_centred(skip, side) for skip, side in zip(skips, sides, strict=True)]
            )
        return self.refinement(encoding, [crop_centre(skip, side) for skip, side in zip(skips, sides, strict=True)])

    def dense(self, images: Tensor) -> DenseOutput:
        """All windows of padded images (B, 3, H, W), with the refinement's skips over the whole image."""
        features = self.deepmask.features(images)
        return self.deepmask.dense_from_features(features)._replace(skips=self.skips(features))

    def skips(self, features: Features) -> tuple[Tensor, ...]:
        """What the refinement takes from trunk features, coarse to fine: in the plain form the features themselves."""
        if self.plain is not None:
            return tuple(reversed(features))[: len(self.refinement.steps)]
        return self.refinement.skips(features)

    def decode(self, dense: DenseOutput, batch_index: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Refined mask logits (N, M, M) of chosen windows, given as three int64 tensors (N,)."""
        if self.plain is None:
            return self.decode_crops(self.crop(dense, batch_index, rows, cols))
        grid, levels = self.spec.grid_side, zip(self.refinement.steps, dense.skips, strict=True)
        return self.plain.forward_plain(
            dense.encodings[batch_index, :, rows, cols],
            [_around(skip, batch_index, rows * step, cols * step, side=grid * step) for step, skip in levels],
        )

    def crop(self, dense: DenseOutput, batch_index: Tensor, rows: Tensor, cols: Tensor) -> tuple[Tensor, ...]:
        """What `decode_crops` makes the masks of chosen windows from, (N, …) each; crops of images of different sizes
        can be concatenated. Not for the plain form, whose crops end where the image does.
        """
        skips = (
            crop_windows(skip, batch_index, rows, cols, step=step, side=self.spec.grid_side * step)
            for step, skip in zip(self.refinement.steps, dense.skips, strict=True)
        )
        return (dense.encodings[batch_index, :, rows, cols], *skips)

    def decode_crops(self, crops: Sequence[Tensor]) -> Tensor:
        """Refined mask logits (N, M, M) of windows that were cropped."""
        return self.refinement(crops[0], crops[1:])

    @property
    def plain(self) -> Refinement | None:
        """The refinement, where it is to work window by window in the plain form."""
        return self.refinement if self.spec.refinement == "plain" and isinstance(self.refinement, Refinement) else None


def _centred(features: Tensor, side: int) -> Crops:
    """Patches' features as they are; the window is their middle."""
    rows, cols = (
        torch.full((len(features),), (size - side) // 2, device=features.device) for size in features.shape[2:]
    )
    return Crops(features, rows, cols)


def _around(features: Tensor, batch_index: Tensor, rows: Tensor, cols: Tensor, *, side: int) -> Crops:
    """Windows with as many cells beside them as a horizontal net sees, or up to the map's edge where that is nearer.

    Crops are moved inwards there rather than filled up, so that they end where the map does and the nets' own padding
    is that of the whole map.
    """
    begins, places = [], []
    sides = [min(side + 2 * REACH, size) for size in features.shape[2:]]
    for first, length, size in zip((rows, cols), sides, features.shape[2:], strict=True):
        begin = (first - REACH).clamp(min=0, max=size - length)
        begins.append(begin)
        places.append(first - begin)
    windows = features.unfold(2, sides[0], 1).unfold(3, sides[1], 1)
    return Crops(windows[batch_index, :, begins[0], begins[1]], places[0], places[1])


def build_network(spec: ModelSpec) -> DeepMask | SharpMask:
    """A network with random weights of the given architecture."""
    return DeepMask(spec) if spec.refinement is None else SharpMask(spec)
