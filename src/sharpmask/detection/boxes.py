"""Box regression: the difference of a box to another as four numbers, and back (R-CNN, appendix C).

Boxes are xyxy pixels. The numbers are the shift of the centre in sides of the first box, and the log of the ratios of
the sides.
"""

import math

import torch
from torch import Tensor

# A side grows by no more than this; a network that has hardly learnt would overflow the exponential.
_LARGEST = math.log(1000 / 16)


def encode_boxes(boxes: Tensor, targets: Tensor) -> Tensor:
    """What turns each box (R, 4) into its target (R, 4): (R, 4) of dx, dy, dw, dh. Sides must be positive."""
    sides, target_sides = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
    shift = (targets[:, :2] + target_sides / 2 - boxes[:, :2] - sides / 2) / sides
    return torch.cat([shift, torch.log(target_sides / sides)], dim=1)


def decode_boxes(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Boxes (R, 1 or K, 4) changed by (R, K, 4), or (R, 4) by (R, 4): the inverse of `encode_boxes`."""
    sides = boxes[..., 2:] - boxes[..., :2]
    centres = boxes[..., :2] + sides / 2 + deltas[..., :2] * sides
    half = sides * torch.exp(deltas[..., 2:].clamp(max=_LARGEST)) / 2
    return torch.cat([centres - half, centres + half], dim=-1)


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (…, 4) cut at the borders of an image of (H, W)."""
    limits = boxes.new_tensor([size[1], size[0], size[1], size[0]])
    return torch.minimum(boxes.clamp(min=0), limits)


def grow_boxes(boxes: Tensor, factor: float) -> Tensor:
    """Boxes (R, 4) with sides `factor` times as long around the same centres."""
    centres, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (factor / 2)
    return torch.cat([centres - half, centres + half], dim=1)
