"""The losses of a detector: softmax over classes for each IoU threshold, smooth L1 for the box of the true class.

Shape letters: R boxes, K classes, T thresholds.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpmask.detection.networks import RoiOutput


def class_loss_sum(output: RoiOutput, labels: Tensor, ious: Tensor, known: Tensor, thresholds: Sequence[int]) -> Tensor:
    """Sum over boxes of the cross entropy, averaged over the thresholds (MultiPathNet's integral loss).

    Args:
        labels: (R,) the class of the object that a box overlaps by .5 or more, 0 for background.
        ious: (R,) that overlap; below a classifier's threshold the box is background to it.
        known: (R, K + 1) bool, the classes in the softmax of a box that is background to a classifier.
        thresholds: percent, one for each classifier.
    """
    targets = torch.stack([torch.where(ious >= threshold / 100 - 1e-6, labels, 0) for threshold in thresholds])
    in_softmax = known | (targets > 0)[:, :, None]  # (T, R, K + 1)
    logits = output.class_logits.float().masked_fill(~in_softmax, -torch.inf)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")
    return losses / len(thresholds)


def box_loss_sum(deltas: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Sum over boxes of objects of the smooth L1 loss of the four numbers of their own class.

    Args:
        deltas: (R, K, 4) normalised.
        labels: (R,), 0 for background.
        targets: (R, 4) normalised.
    """
    own = torch.nonzero(labels > 0)[:, 0]
    return F.smooth_l1_loss(deltas[own, labels[own] - 1].float(), targets[own], reduction="sum")
