"""The losses of both stages (DeepMask paper, section 3.2): logistic, per mask pixel and for the score.

Shape letters: B patches, M side of the mask target.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Pixels of the target to either side of an object's edge that count as its boundary, for a target of 160.
_EDGE = 2


def mask_loss_sum(mask_logits: Tensor, target: Tensor, has_mask: Tensor, boundary_weight: float = 0.0) -> Tensor:
    """Sum over the patches that carry a mask of the mean logistic loss over their pixels.

    Args:
        mask_logits: (B, m, m), brought to the target's size bilinearly where it is smaller.
        target: (B, M, M) of 0 … 1.
        has_mask: (B,) 1 where the patch trains the mask, else 0.
        boundary_weight: the mean is a weighted one in which pixels on the boundary weigh 1 + this, others 1.
    """
    logits = mask_logits.float()
    if logits.shape[-1] != target.shape[-1]:
        logits = F.interpolate(logits[:, None], size=target.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    per_pixel = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    if boundary_weight:
        weights = 1 + boundary_weight * boundary(target)
        return ((per_pixel * weights).sum(dim=(1, 2)) / weights.sum(dim=(1, 2)) * has_mask).sum()
    return (per_pixel.mean(dim=(1, 2)) * has_mask).sum()


def boundary(target: Tensor) -> Tensor:
    """1 where a pixel of (B, M, M) lies within `_EDGE` pixels (of 160; in proportion, at least 1) of the other side of
    an object's edge, else 0; the border of the patch is no edge."""
    reach = max(1, round(_EDGE * target.shape[-1] / 160))
    inside = (target[:, None] >= 0.5).float()
    size = 2 * reach + 1
    # Padding of max_pool2d never wins: outside of the patch everything is as it is inside.
    grown, shrunk = F.max_pool2d(inside, size, 1, reach), -F.max_pool2d(-inside, size, 1, reach)
    return (grown - shrunk)[:, 0]


@torch.no_grad()
def mask_ious(mask_logits: Tensor, target: Tensor) -> Tensor:
    """(B,) IoU of the masks at logit 0 with their targets (B, M, M); 0 where both are empty."""
    logits = mask_logits.float()
    if logits.shape[-1] != target.shape[-1]:
        logits = F.interpolate(logits[:, None], size=target.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    found, wanted = logits > 0, target >= 0.5
    both = (found & wanted).sum(dim=(1, 2)).float()
    return both / (found | wanted).sum(dim=(1, 2)).clamp(min=1)


def score_loss_sum(score_logits: Tensor, label: Tensor, has_score: Tensor) -> Tensor:
    """Sum over the patches that carry a label (B,) of the logistic loss of their objectness score (B,)."""
    per_patch = F.binary_cross_entropy_with_logits(score_logits.float(), label, reduction="none")
    return (per_patch * has_score).sum()
