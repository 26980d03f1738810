"""DeepMask: objectness score and coarse mask of a window, for patches and densely for a whole image.

Shape letters: B patches or images, N windows, P patch side (160), M mask side (56), E encoding length (512),
h w grid of windows. Inputs are RGB in [0, 1]; the network normalises them itself. Suffix `_logits`: before a sigmoid.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sharpmask.networks.heads import Encoder, MaskHead, PooledEncoder, ScoreHead
from sharpmask.networks.layers import crop_centre
from sharpmask.networks.specs import ModelSpec
from sharpmask.networks.trunk import Features, build_trunk


class PatchOutput(NamedTuple):
    """What a network says of patches: `mask_logits` (B, M, M) over the P x P window, `score_logits` (B,)."""

    mask_logits: Tensor
    score_logits: Tensor


class DenseOutput(NamedTuple):
    """What a network says of every window of an image, before any mask is computed.

    Cell (r, c) is the P x P window whose top left corner is at pixel (stride * r, stride * c) of the (padded) input.

    Attributes:
        score_logits: (B, h, w).
        encodings: (B, E, h, w).
        skips: coarse to fine, what the refinement takes from the trunk's features, (B, C_i, H / stride_i, W / stride_i)
            over the whole input; of a plain refinement those features themselves; empty for DeepMask.
    """

    score_logits: Tensor
    encodings: Tensor
    skips: tuple[Tensor, ...]


class DeepMask(nn.Module):
    """The feed-forward network of the DeepMask and SharpMask papers, with any of their heads.

    Args:
        spec: the architecture; `spec.refinement` is ignored here.
    """

    mean: Tensor
    std: Tensor
    int8: str | None = None  # what its file says of 8-bit arithmetic, see runtimes/int8.py

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.trunk = build_trunk(spec)
        self.encoder = Encoder(spec, self.trunk.channels[-1])
        self.mask_head = MaskHead(spec)
        self.score_encoder = PooledEncoder(spec, self.encoder.channels) if spec.head in ("original", "A") else None
        self.score_head = ScoreHead(spec)
        self.register_buffer("mean", torch.tensor(self.trunk.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.trunk.std).view(1, 3, 1, 1), persistent=False)

    @property
    def deepmask(self) -> "DeepMask":
        """The feed-forward network itself, as a SharpMask has it."""
        return self

    def features(self, images: Tensor) -> Features:
        """Trunk features, fine to coarse, of RGB images (B, 3, H, W) in [0, 1]; H and W multiples of the stride."""
        return self.trunk((images - self.mean) / self.std)

    def windows(self, coarsest: Tensor) -> tuple[Tensor, Tensor]:
        """The trunk's coarsest features (B, C, h + g - 1, w + g - 1) -> encodings (B, E, h, w) and score logits
        (B, h, w) of all windows.
        """
        features = self.encoder.reduced(coarsest)
        encodings = self.encoder.encode_reduced(features)
        return encodings, self.scores(features, encodings)

    def scores(self, reduced: Tensor, encodings: Tensor) -> Tensor:
        """Score logits (B, h, w) from the encoder's reduced features and the encodings (B, E, h, w)."""
        described = encodings if self.score_encoder is None else self.score_encoder(reduced)
        return self.score_head(described.movedim(1, -1))

    def skips(self, features: Features) -> tuple[Tensor, ...]:
        """What decoding needs besides the encodings: nothing here."""
        return ()

    def patch_windows(self, features: Features) -> tuple[Tensor, Tensor]:
        """Encodings (B, E) and score logits (B,) of the window in the middle of each patch; the context around it is
        cropped away.
        """
        encodings, score_logits = self.windows(crop_centre(features[-1], self.spec.grid_side))
        return encodings.flatten(1), score_logits.flatten()

    def encode_patches(self, features: Features) -> Tensor:
        """The encodings (B, E) of `patch_windows` alone."""
        return self.encoder(crop_centre(features[-1], self.spec.grid_side)).flatten(1)

    def forward(self, patches: Tensor) -> PatchOutput:
        """Patches (B, 3, P + 2 context, P + 2 context); a larger or no context is allowed too."""
        encoding, score_logits = self.patch_windows(self.features(patches))
        return PatchOutput(self.mask_head(encoding), score_logits)

    def dense(self, images: Tensor) -> DenseOutput:
        """All windows of images (B, 3, H, W), padded by the caller; h = (H - P) / stride + 1."""
        return self.dense_from_features(self.features(images))

    def dense_from_features(self, features: Features) -> DenseOutput:
        encodings, score_logits = self.windows(features[-1])
        return DenseOutput(score_logits, encodings, ())

    def decode(self, dense: DenseOutput, batch_index: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        """Mask logits (N, M, M) of chosen windows, given as three int64 tensors (N,)."""
        return self.decode_crops(self.crop(dense, batch_index, rows, cols))

    def crop(self, dense: DenseOutput, batch_index: Tensor, rows: Tensor, cols: Tensor) -> tuple[Tensor, ...]:
        """What `decode_crops` makes the masks of chosen windows from, (N, …) each; crops of images of different sizes
        can be concatenated.
        """
        return (dense.encodings[batch_index, :, rows, cols],)

    def decode_crops(self, crops: Sequence[Tensor]) -> Tensor:
        """Mask logits (N, M, M) of windows that were cropped."""
        return self.mask_head(crops[0])
