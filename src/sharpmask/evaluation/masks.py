"""COCO segmentations as compressed RLE, checked before they reach pycocotools' C code.

An RLE whose runs do not add up to its height times width makes `pycocotools.mask.iou` loop for ever or read past its
buffer, so files from elsewhere are checked here first. The check reads all masks of an image at once with numpy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

Rle = dict[str, Any]  # {"size": [H, W], "counts": str | bytes}

# Polygons this far outside of any image are a mistake, and rasterising them would take gigabytes.
MAX_COORDINATE = 100_000.0


def to_rle(segmentation: object, height: int | None, width: int | None) -> Rle:
    """One COCO segmentation (polygons, RLE with a list of counts, compressed RLE) as compressed RLE.

    `height` and `width` in pixels are the image's; polygons need them, an RLE must agree with them where they are
    known. An empty list of polygons is an empty mask. Raises ValueError with the reason where it cannot be read.
    """
    if isinstance(segmentation, dict):
        return _checked_size(segmentation, height, width)
    if not isinstance(segmentation, list):
        raise ValueError(f"a segmentation is a list of polygons or an RLE, not {type(segmentation).__name__}")
    if height is None or width is None:
        raise ValueError("polygons need the image's height and width")
    polygons = [segmentation] if segmentation and not isinstance(segmentation[0], list) else segmentation
    try:
        extent = max((abs(float(value)) for polygon in polygons for value in polygon), default=0.0)
        # not (<=) so that a nan is refused as well
        if not extent <= MAX_COORDINATE:
            raise ValueError(f"a polygon has the coordinate {extent:g}, far outside of the image")
        if not polygons:
            return dict(mask_utils.encode(np.zeros((height, width), np.uint8, order="F")))
        return dict(mask_utils.merge(mask_utils.frPyObjects(polygons, height, width)))
    except ValueError:
        raise
    except Exception as error:  # pycocotools raises bare Exceptions
        raise ValueError(f"polygons that cannot be drawn ({error})") from error


def _checked_size(rle: Rle, height: int | None, width: int | None) -> Rle:
    size, counts = rle.get("size"), rle.get("counts")
    if not isinstance(size, list | tuple) or len(size) != 2 or not isinstance(counts, str | bytes | list):
        raise ValueError("an RLE needs 'size' [height, width] and 'counts'")
    if height is not None and (int(size[0]), int(size[1])) != (height, width):
        raise ValueError(f"the mask is {size[0]}x{size[1]} (height x width) but the image is {height}x{width}")
    if isinstance(counts, list):
        if sum(counts) != size[0] * size[1] or min(counts, default=0) < 0:
            raise ValueError(f"the RLE's runs add up to {sum(counts)} pixels instead of {size[0] * size[1]}")
        return dict(mask_utils.frPyObjects(rle, size[0], size[1]))
    return {"size": [int(size[0]), int(size[1])], "counts": counts}


def first_broken(rles: Sequence[Rle]) -> int | None:
    """Index of the first compressed RLE whose runs do not fill its size exactly; None where all are sound.

    COCO writes a run as groups of 5 bits (lowest first, bit 6 says that another group follows, the last group is
    signed), each from the fourth run on as the difference to the run two before it.
    """
    if not rles:
        return None
    strings = [
        rle["counts"].encode("latin-1", "replace") if isinstance(rle["counts"], str) else rle["counts"] for rle in rles
    ]
    lengths = np.array([len(string) for string in strings])
    if (lengths == 0).any():
        return int(np.argmax(lengths == 0))
    groups = np.frombuffer(b"".join(strings), np.uint8).astype(np.int64) - 48
    owner = np.repeat(np.arange(len(strings)), lengths)
    ends = (groups & 32) == 0
    bad = np.zeros(len(strings), bool)
    bad[owner[(groups < 0) | (groups > 63)]] = True
    bad |= ~ends[np.cumsum(lengths) - 1]  # the string stops inside a number
    if bad.any():
        return int(np.argmax(bad))

    stops = np.flatnonzero(ends)
    starts = np.concatenate(([0], stops[:-1] + 1))
    digits = stops - starts + 1
    if (digits > 8).any():  # 40 bits: no image has such a run
        return int(owner[stops[np.argmax(digits > 8)]])
    place = np.arange(len(groups)) - np.repeat(starts, digits)
    values = np.add.reduceat((groups & 31) << (5 * place), starts)
    values -= np.where(groups[stops] & 16, np.int64(1) << (5 * digits), 0)

    owner = owner[stops]
    first = np.searchsorted(owner, np.arange(len(strings)))  # where each mask's runs begin
    position = np.arange(len(values)) - first[owner]
    runs = values.copy()
    for parity in (0, 1):  # undo the differences: a running sum over every second run, the very first run apart
        chosen = (position % 2 == parity) & (position > 0)
        total = np.cumsum(np.where(chosen, values, 0))
        before = np.concatenate(([0], total))[first]
        runs[chosen] = (total - before[owner])[chosen]
    bad[owner[runs < 0]] = True
    filled = np.add.reduceat(runs, first)
    bad |= filled != np.array([rle["size"][0] * rle["size"][1] for rle in rles])
    return int(np.argmax(bad)) if bad.any() else None


def mask_boxes(rles: Sequence[Rle]) -> np.ndarray:
    """The masks' bounding boxes, xywh in pixels, (N, 4) float64."""
    if not rles:
        return np.zeros((0, 4))
    return np.asarray(mask_utils.toBbox(list(rles)), np.float64).reshape(-1, 4)


def mask_ious(first: Sequence[Rle], second: Sequence[Rle]) -> np.ndarray:
    """IoU of every mask of `first` with every one of `second`, (N, G) float64."""
    if not first or not second:
        return np.zeros((len(first), len(second)))
    return np.asarray(mask_utils.iou(list(first), list(second), [0] * len(second)), np.float64)


def box_ious(first_xywh: np.ndarray, second_xywh: np.ndarray) -> np.ndarray:
    """IoU of every box of `first_xywh` (N, 4) with every one of `second_xywh` (G, 4), (N, G) float64."""
    if not len(first_xywh) or not len(second_xywh):
        return np.zeros((len(first_xywh), len(second_xywh)))
    ious = mask_utils.iou(
        np.ascontiguousarray(first_xywh, np.float64),
        np.ascontiguousarray(second_xywh, np.float64),
        [0] * len(second_xywh),
    )
    return np.nan_to_num(np.asarray(ious, np.float64))  # two boxes without area: 0/0
