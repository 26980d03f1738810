"""SharpMask: DeepMask's encoding and score with a refined, full-resolution mask.

Shape letters: B patches or images, N windows, P patch side (160), M mask side (P, or half of it for each refinement
module left out), E encoding length, m side of a crop at one stage.
"""

import dataclasses
from collections.abc import Sequence

from torch import Tensor, nn

from sharpmask.networks.deepmask import DeepMask, DenseOutput, PatchOutput
from sharpmask.networks.layers import crop_centre
from sharpmask.networks.multiscale import MultiScale
from sharpmask.networks.refinement import Refinement
from sharpmask.networks.specs import ModelSpec
from sharpmask.networks.trunk import Features


class SharpMask(nn.Module):
    """DeepMask with refinement on top; stage 2 of training changes `refinement` only.

    Args:
        spec: the architecture, with `spec.refinement` set.
        crop_first: crop the skip features to the window before the horizontal nets in patch mode, as the Torch release
            does. The default crops after them, as whole-image mode does.
    """

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
        if self.spec.refinement == "plain" and isinstance(self.refinement, Refinement):
            return self.refinement.forward_plain(encoding, features)
        skips = [
            crop_centre(skip, self.spec.grid_side * step)
            for step, skip in zip(self.refinement.steps, self.refinement.skips(features), strict=True)
        ]
        return self.refinement(encoding, skips)

    def dense(self, images: Tensor) -> DenseOutput:
        """All windows of padded images (B, 3, H, W), with the refinement's skips over the whole image."""
        features = self.deepmask.features(images)
        return self.deepmask.dense_from_features(features)._replace(skips=self.refinement.skips(features))

    def decode(self, dense: DenseOutput, batch_index: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Refined mask logits (N, M, M) of chosen windows, given as three int64 tensors (N,).

        Always in the refactored form; the plain one is there for patches, to be compared with.
        """
        return self.decode_crops(self.crop(dense, batch_index, rows, cols))

    def crop(self, dense: DenseOutput, batch_index: Tensor, rows: Tensor, cols: Tensor) -> tuple[Tensor, ...]:
        """What `decode_crops` makes the masks of chosen windows from, (N, …) each; crops of images of different sizes
        can be concatenated.
        """
        skips = (
            crop_windows(skip, batch_index, rows, cols, step=step, side=self.spec.grid_side * step)
            for step, skip in zip(self.refinement.steps, dense.skips, strict=True)
        )
        return (dense.encodings[batch_index, :, rows, cols], *skips)

    def decode_crops(self, crops: Sequence[Tensor]) -> Tensor:
        """Refined mask logits (N, P, P) of windows that were cropped."""
        return self.refinement(crops[0], crops[1:])


def crop_windows(x: Tensor, batch_index: Tensor, rows: Tensor, cols: Tensor, *, step: int, side: int) -> Tensor:
    """Crops (N, C, side, side) of (B, C, H, W), top left at (row * step, col * step) of the given images."""
    windows = x.unfold(2, side, step).unfold(3, side, step)  # a view (B, C, h, w, side, side)
    return windows[batch_index, :, rows, cols]


def build_network(spec: ModelSpec) -> DeepMask | SharpMask:
    """A network with random weights of the given architecture."""
    return DeepMask(spec) if spec.refinement is None else SharpMask(spec)
