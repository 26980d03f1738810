"""DeepMask: objectness score and coarse mask of a window, for patches and densely for a whole image.

Shape letters: B patches or images, N windows, P patch side (160), M mask side (56), E encoding length (512),
h w grid of windows. Inputs are RGB in [0, 1]; the network normalises them itself. Suffix `_logits`: before a sigmoid.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sharpmask.networks.heads import Encoder, MaskHead, ScoreHead
from sharpmask.networks.specs import ModelSpec
from sharpmask.networks.trunk import Features, build_trunk


class PatchOutput(NamedTuple):
    """What a network says of patches: `mask_logits` (B, M, M) over the P x P window, `score_logits` (B,)."""

    mask_logits: Tensor
    score_logits: Tensor


class DenseOutput(NamedTuple):
    """What a network says of every window of an image, before any mask is computed.

    Cell (r, c) is the P x P window whose top left corner is at pixel (16 r, 16 c) of the (padded) input.

    Attributes:
        score_logits: (B, h, w).
        encodings: (B, E, h, w).
        skips: per refinement stage, coarse to fine, the horizontal net's output (B, C_i, H / stride_i, W / stride_i)
            over the whole input; empty for DeepMask.
    """

    score_logits: Tensor
    encodings: Tensor
    skips: tuple[Tensor, ...]


class DeepMask(nn.Module):
    """The feed-forward network of the DeepMask and SharpMask papers, with head C.

    Args:
        spec: the architecture; `spec.refinement` is ignored here.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.trunk = build_trunk(spec)
        self.encoder = Encoder(spec, self.trunk.channels[-1])
        self.mask_head = MaskHead(spec)
        self.score_head = ScoreHead(spec)
        self.register_buffer("mean", torch.tensor(self.trunk.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.trunk.std).view(1, 3, 1, 1), persistent=False)

    def features(self, images: Tensor) -> Features:
        """Trunk features of RGB images (B, 3, H, W) in [0, 1]; H and W multiples of 16."""
        return self.trunk((images - self.mean) / self.std)

    def encode_patches(self, features: Features) -> Tensor:
        """Encodings (B, E) of the window in the middle of each patch; the context around it is cropped away."""
        return self.encoder(crop_centre(features.stride16, self.spec.grid_side)).flatten(1)

    def forward(self, patches: Tensor) -> PatchOutput:
        """Patches (B, 3, P + 2 context, P + 2 context); a larger or no context is allowed too."""
        encoding = self.encode_patches(self.features(patches))
        return PatchOutput(self.mask_head(encoding), self.score_head(encoding))

    def dense(self, images: Tensor) -> DenseOutput:
        """All windows of images (B, 3, H, W), padded by the caller; h = H / 16 - P / 16 + 1."""
        return self.dense_from_features(self.features(images))

    def dense_from_features(self, features: Features) -> DenseOutput:
        encodings = self.encoder(features.stride16)  # (B, E, h, w)
        return DenseOutput(self.score_head(encodings.movedim(1, -1)), encodings, ())

    def decode(self, dense: DenseOutput, batch_index: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Mask logits (N, M, M) of chosen windows, given as three int64 tensors (N,)."""
        return self.mask_head(dense.encodings[batch_index, :, rows, cols])


def crop_centre(x: Tensor, side: int) -> Tensor:
    """The middle side x side cells of (B, C, H, W)."""
    top, left = (x.shape[-2] - side) // 2, (x.shape[-1] - side) // 2
    return x[..., top : top + side, left : left + side]
