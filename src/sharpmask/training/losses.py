"""The losses of both stages (DeepMask paper, section 3.2): logistic, per mask pixel and for the score.

Shape letters: B patches, M side of the mask target.
"""

import torch.nn.functional as F
from torch import Tensor


def mask_loss_sum(mask_logits: Tensor, target: Tensor, has_mask: Tensor) -> Tensor:
    """Sum over the patches that carry a mask of the mean logistic loss over their pixels.

    Args:
        mask_logits: (B, m, m), brought to the target's size bilinearly where it is smaller.
        target: (B, M, M) of 0 and 1.
        has_mask: (B,) 1 where the patch trains the mask, else 0.
    """
    logits = mask_logits.float()
    if logits.shape[-1] != target.shape[-1]:
        logits = F.interpolate(logits[:, None], size=target.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    per_pixel = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    return (per_pixel.mean(dim=(1, 2)) * has_mask).sum()


def score_loss_sum(score_logits: Tensor, label: Tensor, has_score: Tensor) -> Tensor:
    """Sum over the patches that carry a label (B,) of the logistic loss of their objectness score (B,)."""
    per_patch = F.binary_cross_entropy_with_logits(score_logits.float(), label, reduction="none")
    return (per_patch * has_score).sum()
