"""From the boxes of one image to scored classes and corrected boxes, and which of them are kept.

Shape letters: N proposals, K classes, D detections, H W image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sharpmask.detection.classes import DetectorClass
from sharpmask.detection.networks import FastRCNN, MultiPathNet
from sharpmask.detection.roi import box_iou, nms_by_class

# Boxes that go through the fully connected layers at a time.
_BATCH = 256


@dataclass(frozen=True)
class ScoredBoxes:
    """What a detector says of N proposals, best proposal first: `prob` (N, K + 1), background first, and `boxes`
    (N, K, 4) xyxy as each class corrects them."""

    prob: torch.Tensor
    boxes: torch.Tensor


@dataclass(frozen=True)
class Selected:
    """D detections, best first: `proposals` (D,) places of their proposals, `labels` (D,) 1 … K, `scores` (D,),
    `boxes` (D, 4)."""

    proposals: torch.Tensor
    labels: torch.Tensor
    scores: torch.Tensor
    boxes: torch.Tensor

    def to_coco(self, image_id: Any, classes: Sequence[DetectorClass]) -> list[dict[str, Any]]:
        """COCO results of the boxes (xywh)."""
        xywh = torch.cat([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], dim=1).double()
        return [
            {
                "image_id": image_id,
                "category_id": classes[label - 1].id,
                "score": round(score, 5),
                "bbox": [round(value, 2) for value in box],
            }
            for label, score, box in zip(self.labels.tolist(), self.scores.tolist(), xywh.tolist(), strict=True)
        ]


@torch.inference_mode()
def score_boxes(
    network: FastRCNN | MultiPathNet, pixels: np.ndarray, boxes: np.ndarray | torch.Tensor, device: torch.device
) -> ScoredBoxes:
    """Classes and corrected boxes of proposals (N, 4) of an image (H, W, 3) uint8."""
    rois = torch.as_tensor(np.asarray(boxes, np.float32)).to(device).reshape(-1, 4)
    image = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(2, 0, 1).float() / 255
    classes = network.classes
    prob, corrected = [rois.new_zeros(0, classes + 1)], [rois.new_zeros(0, classes, 4)]
    if len(rois):
        features, scale = network.features(image)
        for part in rois.split(_BATCH):
            output = network(features, part, scale)
            prob.append(output.class_prob)
            corrected.append(network.correct(part, output.deltas.float(), scale.size))
    return ScoredBoxes(torch.cat(prob).cpu(), torch.cat(corrected).cpu())


def select(
    scored: ScoredBoxes,
    *,
    min_score: float,
    nms: float,
    top: int,
    vote: float | None = None,
    proposals: int | None = None,
) -> Selected:
    """The detections: every class of every proposal with at least `min_score`, class by class without those that
    overlap a better one by more than `nms`, and of the rest the best `top`.

    Args:
        vote: a box that is kept becomes the mean of all boxes of its class, also of those that were dropped, that
            overlap it by at least so much, weighted by their scores (box voting, arXiv 1505.01749); None: it stays.
        proposals: look at the first so many only.
    """
    prob, boxes = scored.prob[:proposals, 1:], scored.boxes[:proposals]
    places, classes = torch.nonzero(prob >= min_score, as_tuple=True)
    scores, chosen = prob[places, classes], boxes[places, classes]
    sides = chosen[:, 2:] - chosen[:, :2]
    whole = (sides > 0).all(dim=1)
    places, classes, scores, chosen = places[whole], classes[whole], scores[whole], chosen[whole]
    kept = nms_by_class(chosen, scores, classes, nms)[:top]
    final = chosen[kept]
    if vote is not None:
        votes = scores * ((box_iou(final, chosen) >= vote) & (classes[kept][:, None] == classes))
        votes[torch.arange(len(kept)), kept] += 1e-9  # a box of the score 0 still votes for itself
        final = votes @ chosen / votes.sum(dim=1, keepdim=True)
    return Selected(places[kept], classes[kept] + 1, scores[kept], final)
