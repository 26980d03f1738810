"""COCO segmentations as compressed RLE, checked before they reach pycocotools' C code.

An RLE whose runs do not add up to its height times width makes `pycocotools.mask.iou` loop for ever or read past its
buffer, so files from elsewhere are checked here first. The check reads all masks of an image at once with numpy, and
finds their areas and boxes on the way: most pairs of a proposal and an object are ruled out by these alone.

Letters: N masks, R runs of all of them, G objects.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
    short = next((p for p in polygons if isinstance(p, list) and (len(p) < 6 or len(p) % 2)), None)
    if short is not None:
        raise ValueError(f"a polygon of {len(short)} numbers; pairs of x and y of at least three corners are needed")
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
    sides: list[Any] = list(size) if isinstance(size, list | tuple) and len(size) == 2 else [None]
    runs = counts if isinstance(counts, list) else []
    if not all(map(_is_whole, [*sides, *runs])) or not isinstance(counts, str | bytes | list):
        raise ValueError("an RLE needs 'size' [height, width] and 'counts'")
    size = [int(side) for side in sides]
    if height is not None and size != [height, width]:
        raise ValueError(f"the mask is {size[0]}x{size[1]} (height x width) but the image is {height}x{width}")
    if isinstance(counts, list):
        if min(counts, default=0) < 0:
            raise ValueError(f"the RLE has a run of {min(counts)} pixels")
        if sum(counts) != size[0] * size[1]:
            raise ValueError(f"the RLE's runs add up to {sum(counts)} pixels instead of {size[0] * size[1]}")
        return dict(mask_utils.frPyObjects(rle, size[0], size[1]))
    return {"size": size, "counts": counts}


def _is_whole(value: object) -> bool:
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer):
        return False
    return math.isfinite(value) and value == int(value)


@dataclass(frozen=True)
class MaskShapes:
    """What the runs of N masks tell. Areas and boxes are right where no mask is broken.

    Attributes:
        broken: index of the first RLE whose runs do not fill its size exactly; None where all are sound.
        areas: (N,) int64, pixels.
        boxes: (N, 4) int64, xyxy of the pixels with exclusive maximum, zeros for an empty mask.
    """

    broken: int | None
    areas: np.ndarray
    boxes: np.ndarray


def first_broken(rles: Sequence[Rle]) -> int | None:
    """Index of the first compressed RLE whose runs do not fill its size exactly; None where all are sound."""
    return mask_shapes(rles).broken


def mask_shapes(rles: Sequence[Rle]) -> MaskShapes:
    """Check N compressed RLEs, and measure them.

    COCO writes a run as groups of 5 bits (lowest first, bit 6 says that another group follows, the last group is
    signed), each from the fourth run on as the difference to the run two before it. Runs of zeros come first.
    """
    count = len(rles)
    nothing = MaskShapes(None, np.zeros(count, np.int64), np.zeros((count, 4), np.int64))
    if not rles:
        return nothing
    strings = [rle["counts"] for rle in rles]
    if all(isinstance(string, str) for string in strings):
        joined = "".join(strings).encode("latin-1", "replace")
    else:
        joined = b"".join(s.encode("latin-1", "replace") if isinstance(s, str) else s for s in strings)
    lengths = np.fromiter(map(len, strings), np.int64, count)

    def broken(bad: np.ndarray) -> MaskShapes:
        return MaskShapes(int(np.argmax(bad)), nothing.areas, nothing.boxes)

    if (lengths == 0).any():
        return broken(lengths == 0)
    groups = np.frombuffer(joined, np.uint8) - np.uint8(48)  # what is below 48 wraps to far above 63
    begins = np.concatenate(([0], np.cumsum(lengths)))  # of the masks' strings
    ends = groups < 32
    cut = ~ends[begins[1:] - 1]  # the string stops inside a number
    if groups.max() > 63 or cut.any():
        cut[np.searchsorted(begins, np.flatnonzero(groups > 63), side="right") - 1] = True
        return broken(cut)

    heights, widths = np.array([rle["size"] for rle in rles], np.int64).T
    stops = np.flatnonzero(ends)
    first = np.searchsorted(stops, begins)  # where each mask's runs begin
    values, digits = _numbers(groups, ends, stops)
    bad = np.zeros(count, bool)
    if digits > 8:  # more than 40 bits: no image has such a run
        bad[np.searchsorted(first, np.flatnonzero(np.diff(stops, prepend=-1) > 8), side="right") - 1] = True
        return broken(bad)
    # 32 bits are half the work; running sums over all masks may wrap around, which their differences undo, and a
    # single run that wrapped would be seen on its way as a negative one, because no number is longer than 30 bits.
    if digits <= 6 and (heights * widths).max() < 2**31:
        values = values.astype(np.int32)
    # Pairs of a run of zeros and one of ones; a mask that ends with zeros gets an empty run of ones.
    counts = np.diff(first)
    odd = counts & 1
    limits = np.concatenate(([0], np.cumsum((counts + odd) // 2)))  # where each mask's pairs begin
    pairs = np.zeros(2 * limits[-1], values.dtype)
    pairs[np.arange(len(values)) + np.repeat(2 * limits[:-1] - first[:-1], counts)] = values
    zeros, ones = pairs[0::2], pairs[1::2]
    ones = _restarted_sums(ones, limits)
    ones[limits[1:][odd > 0] - 1] = 0
    leading = zeros[limits[:-1]]  # not part of the differences
    zeros[limits[:-1]] = 0
    zeros = _restarted_sums(zeros, limits)
    zeros[limits[:-1]] = leading
    for runs in (zeros, ones):
        if runs.min() < 0:
            bad[np.searchsorted(limits, np.flatnonzero(runs < 0), side="right") - 1] = True
    areas = np.add.reduceat(ones, limits[:-1], dtype=np.int64)
    bad |= areas + np.add.reduceat(zeros, limits[:-1], dtype=np.int64) != heights * widths
    if bad.any():
        return broken(bad)
    return MaskShapes(None, areas, _boxes(zeros, ones, limits, heights))


def _numbers(groups: np.ndarray, ends: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, int]:
    """The numbers (R,) int64 that end at `stops`, and the digits of the longest one (9 for all that are too long)."""
    values = ((groups[stops] & 31).astype(np.int8) ^ 16).astype(np.int64) - 16  # the last group is signed
    place, chosen = stops, np.arange(len(stops))
    for digits in range(1, 9):
        going_on = np.flatnonzero(~ends[place - 1] & (place > 0))  # of the few that have another group before
        if not going_on.size:
            return values, digits
        place, chosen = place[going_on] - 1, chosen[going_on]
        values[chosen] = (values[chosen] << 5) | (groups[place] & 31)
    return values, 9


def _restarted_sums(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Running sums that begin anew at each of `limits` (N+1,)."""
    sums = np.cumsum(values, dtype=values.dtype)
    before = np.append(values.dtype.type(0), sums)[limits[:-1]]
    sums -= np.repeat(before, np.diff(limits))
    return sums


def _boxes(zeros: np.ndarray, ones: np.ndarray, limits: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) int64 from pairs of runs of sound masks; pixels are counted down the columns."""
    stop = _restarted_sums(zeros + ones, limits)
    start = stop - ones
    filled = ones > 0
    if not filled.all():
        limits = np.append(0, np.cumsum(filled))[limits]
        start, stop = start[filled], stop[filled]
    boxes = np.zeros((len(heights), 4), np.int64)
    there = np.flatnonzero(np.diff(limits))
    if not there.size:
        return boxes
    same = (heights == heights[0]).all()
    height = stop.dtype.type(heights[0]) if same else np.repeat(heights, np.diff(limits)).astype(stop.dtype)
    left, right = start // height, (stop - 1) // height
    # A run that crosses into another column holds a column's last pixel and the next one's first.
    crossing = right > left
    top = np.where(crossing, 0, start - left * height)
    bottom = np.where(crossing, height, stop - right * height)
    begin, last = limits[there], limits[there + 1] - 1
    columns = left[begin], np.minimum.reduceat(top, begin), right[last] + 1, np.maximum.reduceat(bottom, begin)
    boxes[there] = np.stack(columns, axis=1)
    return boxes


def may_overlap(first: MaskShapes, second: MaskShapes) -> np.ndarray:
    """Which of the masks of `first` can have an IoU of .5 and more with which of `second`, (N, G) bool.

    The intersection lies in both boxes and in both masks, and an IoU of .5 is an intersection of a third of the two
    areas' sum. Whole numbers: exact.
    """
    a, b = first.boxes[:, None], second.boxes[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    most = sides.clip(0).prod(axis=-1)
    np.minimum(most, first.areas[:, None], out=most)
    np.minimum(most, second.areas[None], out=most)
    return (3 * most >= first.areas[:, None] + second.areas[None]) & (most > 0)


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
