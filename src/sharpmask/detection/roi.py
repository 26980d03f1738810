"""What detection does with boxes on feature maps: IoU, RoIAlign, non-maximum suppression.

torchvision's kernels are used where they work. Its compiled part needs not fit the torch that is installed, which shows
as a RuntimeError only when it is imported; then, and without torchvision, the functions here do the same.

Shape letters: B images, R boxes, C channels, H W the feature map, S side of the pooled result. Boxes are xyxy, pixels
of the image, continuous: pixel i spans [i, i + 1].
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

try:
    from torchvision import ops as _loaded_ops

    _ops: Any = _loaded_ops
except (ImportError, RuntimeError, OSError):
    _ops = None

# A box is pooled from so many points along each side of each of its S x S bins.
SAMPLES = 2


def has_torchvision() -> bool:
    """Whether torchvision's kernels are used."""
    return _ops is not None


def box_areas(boxes: Tensor) -> Tensor:
    """Areas (R,) of boxes (R, 4); 0 for a box turned inside out."""
    return (boxes[:, 2] - boxes[:, 0]).clamp(min=0) * (boxes[:, 3] - boxes[:, 1]).clamp(min=0)


def intersections(boxes: Tensor, others: Tensor) -> Tensor:
    """Areas (R, Q) that boxes (R, 4) and others (Q, 4) have in common."""
    low = torch.maximum(boxes[:, None, :2], others[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return (high - low).clamp(min=0).prod(dim=2)


def box_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """IoU (R, Q) of boxes (R, 4) and others (Q, 4); 0 of two empty ones."""
    common = intersections(boxes, others)
    union = box_areas(boxes)[:, None] + box_areas(others)[None] - common
    return torch.where(union > 0, common / union.clamp(min=1e-9), torch.zeros_like(common))


def roi_align(features: Tensor, boxes: Tensor, image_index: Tensor, *, scale: Tensor | float, side: int = 7) -> Tensor:
    """Features of boxes, (R, C, S, S): means of bilinear samples, the half-pixel shift of feature maps accounted for.

    Args:
        features: (B, C, H, W).
        boxes: (R, 4).
        image_index: (R,) int64, the image of each box.
        scale: feature cells for one pixel, a number or (2,) for x and y.
        side: S.
    """
    factors = torch.as_tensor(scale, dtype=boxes.dtype, device=boxes.device).expand(2)
    cells = boxes * factors.repeat(2)
    # In single precision at least: bf16 rounds the place of a box by whole pixels.
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    with torch.autocast(features.device.type, enabled=False):
        if _ops is None:
            return _roi_align(wide, cells, image_index, side).to(features.dtype)
        indexed = torch.cat([image_index[:, None].to(cells.dtype), cells], dim=1).to(wide.dtype)
        return _ops.roi_align(wide, indexed, side, 1.0, SAMPLES, True).to(features.dtype)


def _roi_align(features: Tensor, cells: Tensor, image_index: Tensor, side: int) -> Tensor:
    """`roi_align` of boxes in feature cells, by grid_sample."""
    count, channels = len(cells), features.shape[1]
    pooled = features.new_zeros(count, channels, side, side)
    for image in torch.unique(image_index).tolist():
        chosen = torch.nonzero(image_index == image)[:, 0]
        pooled = pooled.index_copy(0, chosen, _pool_one(features[image], cells[chosen], side))
    return pooled


def _pool_one(feature: Tensor, cells: Tensor, side: int) -> Tensor:
    """Boxes (R, 4) in cells of one map (C, H, W) -> (R, C, S, S)."""
    points = side * SAMPLES
    places = (torch.arange(points, device=cells.device, dtype=cells.dtype) + 0.5) / points
    grids, seen = [], []
    for low, high, size in ((0, 2, feature.shape[2]), (1, 3, feature.shape[1])):
        begin, length = cells[:, low, None], (cells[:, high] - cells[:, low])[:, None]
        at = begin + places * length  # (R, points), cell i has its centre at i + 0.5
        seen.append((at > -0.5) & (at < size + 0.5))  # farther out there is nothing
        grids.append(2 * at / size - 1)
    xs, ys = grids
    grid = torch.stack(torch.broadcast_tensors(xs[:, None, :], ys[:, :, None]), dim=3)  # (R, points, points, 2)
    flat = grid.reshape(1, -1, points, 2).to(feature.dtype)
    sampled = F.grid_sample(feature[None], flat, mode="bilinear", padding_mode="border", align_corners=False)
    inside = (seen[1][:, :, None] & seen[0][:, None, :]).reshape(1, 1, -1, points)
    pooled = F.avg_pool2d(sampled * inside, SAMPLES)  # (1, C, R * S, S): bins end where boxes do
    return pooled.reshape(feature.shape[0], len(cells), side, side).transpose(0, 1)


def nms(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Places of the boxes (R, 4) that are kept, best score first: each whose IoU with every kept one is at most `iou`.

    Equal scores count in the order given.
    """
    order = torch.argsort(scores, descending=True, stable=True)
    if _ops is not None:
        # In our order: of equal scores torchvision promises none.
        falling = torch.arange(len(order), 0, -1, dtype=boxes.dtype, device=boxes.device)
        return order[_ops.nms(boxes[order], falling, iou)]
    return order[_nms_sorted(boxes[order], iou)]


def _nms_sorted(boxes: Tensor, iou: float) -> Tensor:
    """Places that are kept of boxes with the best first."""
    doubles = (box_iou(boxes, boxes) > iou).cpu().numpy()
    gone = np.zeros(len(boxes), bool)
    kept = []
    for place in range(len(boxes)):
        if not gone[place]:
            kept.append(place)
            gone |= doubles[place]
    return torch.tensor(kept, dtype=torch.int64, device=boxes.device)


def nms_by_class(boxes: Tensor, scores: Tensor, classes: Tensor, iou: float) -> Tensor:
    """`nms` within each class (R,) for itself; the places that are kept over all classes, best score first."""
    kept = [torch.zeros(0, dtype=torch.int64, device=boxes.device)]
    for number in torch.unique(classes).tolist():
        own = torch.nonzero(classes == number)[:, 0]
        kept.append(own[nms(boxes[own], scores[own], iou)])
    places = torch.cat(kept).sort().values  # so that equal scores of two classes keep the order given
    return places[torch.argsort(scores[places], descending=True, stable=True)]
