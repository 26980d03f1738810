"""The mask of an object whose box is known: the proposal network on the window that the box calls for.

Proposals come from a fixed grid of windows and scales, so that an object is seldom exactly in the middle of its window
and of canonical size. Once a detector has said where it is, the network can be shown just that window.

Shape letters: N boxes, P window side, M mask side, H W image.
"""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sharpmask.data.geometry import CanonicalGeometry, centred_window, crop_patch
from sharpmask.errors import ConfigError
from sharpmask.proposals.rle import Rle, encode_windows

_BATCH = 32
# A box of less than this is no object, and its window would be magnified without end.
_LEAST_SIDE = 4.0


@torch.inference_mode()
def refine_masks(
    network: Any, pixels: np.ndarray, boxes: np.ndarray, threshold: float, device: torch.device
) -> list[Rle | None]:
    """Masks of the objects in boxes (N, 4) xyxy of an image (H, W, 3) uint8; None where a mask would be empty.

    Args:
        network: a DeepMask or SharpMask.
        threshold: a pixel belongs to the mask where its probability is greater.

    Raises:
        ConfigError: the network was prepared for a runtime and takes no patches.
    """
    if not isinstance(network, torch.nn.Module):
        raise ConfigError("masks are refined for a box by the network itself; load the model with runtime='eager'")
    spec: Any = network.spec
    geometry = CanonicalGeometry(patch_size=spec.patch_size, context=spec.context)
    windows = [
        centred_window((x0, y0, max(_LEAST_SIDE, x1 - x0), max(_LEAST_SIDE, y1 - y0)), geometry)
        for x0, y0, x1, y1 in boxes.astype(np.float64).tolist()
    ]
    limit, size = math.log(threshold / (1 - threshold)), (pixels.shape[0], pixels.shape[1])
    found: list[Rle | None] = []
    for begin in range(0, len(windows), _BATCH):
        part = windows[begin : begin + _BATCH]
        patches = np.stack([crop_patch(pixels, window, geometry) for window in part])
        images = torch.from_numpy(patches).to(device).permute(0, 3, 1, 2).float() / 255
        logits = network(images).mask_logits.float()
        for mask, window in zip(logits, part, strict=True):
            found.append(_pasted(mask, window.box(spec.patch_size), limit, size))
    return found


def _pasted(
    logits: torch.Tensor, box: tuple[float, float, float, float], limit: float, size: tuple[int, int]
) -> Rle | None:
    """Mask logits (M, M) over a window (xyxy), as a mask of the image of `size` (H, W)."""
    firsts, places = [], []
    for begin, end, length in ((box[0], box[2], size[1]), (box[1], box[3], size[0])):
        first = min(max(math.ceil(begin - 0.5), 0), length)
        last = min(max(math.ceil(end - 0.5), first), length)  # the pixels whose centres lie in window and image
        firsts.append(first)
        places.append(2 * (torch.arange(first, last, device=logits.device) + 0.5 - begin) / (end - begin) - 1)
    if not all(map(len, places)):
        return None
    x, y = torch.meshgrid(*places, indexing="ij")
    grid = torch.stack([x, y], dim=2)[None].float()  # (1, w, h, 2): columns first, as run lengths are counted
    sampled = F.grid_sample(logits[None, None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    encoded = encode_windows((sampled[0] > limit).cpu(), np.array(firsts[:1]), np.array(firsts[1:]), size)
    return encoded.rles[0] if encoded.areas[0] else None
