"""Window masks to COCO run-length encoding, at the cost of the windows and not of N full-size images.

COCO's encoding of a mask (H,W) walks the pixels column by column (down each column, columns from left to right) and
lists the lengths of the runs of zeros and ones in turn, zeros first. Its compressed form writes each length, from the
fourth on as the difference to the length two before, as a little-endian number of 5-bit digits (bit 5 of a character:
more digits follow), each character offset by 48.

Shape letters: N masks, w and h the sides of the windows, H and W those of the image.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sharpmask.proposals.outlines import column_toggles

Rle = dict[str, Any]  # {"size": [H, W], "counts": str}, as in COCO result files


@dataclass(frozen=True)
class EncodedMasks:
    """N masks of one image: `rles` list of N compressed RLEs, `boxes` (N,4) float32 xyxy of the set pixels with
    exclusive maximum (zeros for an empty mask), `areas` (N,) int64 in pixels; `stability` (N,) float32 where asked
    for (see `windows.paste_windows`)."""

    rles: list[Rle]
    boxes: np.ndarray
    areas: np.ndarray
    stability: np.ndarray | None = None

    def take(self, places: np.ndarray) -> "EncodedMasks":
        """The masks at these places, in this order."""
        return EncodedMasks(
            [self.rles[i] for i in places.tolist()],
            self.boxes[places],
            self.areas[places],
            None if self.stability is None else self.stability[places],
        )


def join_encoded(parts: Sequence[EncodedMasks]) -> EncodedMasks:
    """Masks of one image one after the other, all with `stability` or all without."""
    parts = [part for part in parts if part.rles]
    stability = [part.stability for part in parts if part.stability is not None]
    return EncodedMasks(
        [rle for part in parts for rle in part.rles],
        np.concatenate([np.zeros((0, 4), np.float32), *(part.boxes for part in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(part.areas for part in parts)]),
        np.concatenate(stability) if stability else None,
    )


def encode_windows(
    columns: torch.Tensor | np.ndarray, lefts: np.ndarray, tops: np.ndarray, image_size: tuple[int, int]
) -> EncodedMasks:
    """Encode N masks given in windows of one size; the result equals `pycocotools.mask.encode` of the pasted masks.

    Args:
        columns: (N,w,h) bool, transposed: `columns[n, x, y]` is the image pixel (lefts[n] + x, tops[n] + y). Parts of
            a window outside the image must be zero.
        lefts: (N,) integers, image column of each window's first column; `tops` the row of its first row.
        image_size: (H, W).

    Raises:
        ValueError: a set pixel lies outside the image.
    """
    columns = np.asarray(columns)
    height, width = image_size
    for axis, origin, limit in ((2, lefts, width), (1, tops, height)):
        mask, place = np.nonzero(columns.any(axis=axis))
        place = place + np.asarray(origin, np.int64)[mask]
        if place.size and (place.min() < 0 or place.max() >= limit):
            raise ValueError(f"a mask has pixels outside the image of {width}x{height}")
    columns = np.pad(columns, ((0, 0), (0, 0), (0, 1)))
    return encode_toggles(column_toggles(columns, lefts, tops, image_size), len(columns), image_size)


def encode_toggles(toggles: np.ndarray, count: int, image_size: tuple[int, int]) -> EncodedMasks:
    """Encode `count` masks given by their sorted toggles (see `outlines.window_toggles`)."""
    height, width = image_size
    pixels = height * width
    start, end = toggles[0::2], toggles[1::2]
    if not (filled := end > start).all():
        start, end = start[filled], end[filled]
    # A run that reaches the image's lower edge goes on in a run at the upper edge of the next column.
    if not (apart := start[1:] > end[:-1]).all():
        start, end = start[np.append(True, apart)], end[np.append(apart, True)]
    origins = np.arange(count + 1) * (pixels + 1)
    first = np.searchsorted(start, origins)  # where each mask's runs begin
    runs = np.diff(first)
    index = np.int32 if pixels < 2**31 else np.int64
    origin = np.repeat(origins[:-1], runs)
    start, end = (start - origin).astype(index), (end - origin).astype(index)
    boxes, areas = _boxes_and_areas(start, end, first, height)
    strings = _compress(*_counts(start, end, first, pixels))
    return EncodedMasks([{"size": [height, width], "counts": text} for text in strings], boxes, areas)


def decode_counts(rle: Rle) -> np.ndarray:
    """The run lengths (K,) int64 of a compressed RLE, zeros first: the inverse of COCO's text form."""
    values = _numbers(_codes(rle))[0]
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def _codes(rle: Rle) -> np.ndarray:
    """The characters of a compressed RLE."""
    text = rle["counts"]
    return np.frombuffer(text if isinstance(text, bytes) else text.encode("ascii"), np.uint8)


def _numbers(characters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers (K,) int64 of COCO's text form as they are written, and the places (K,) of their last characters."""
    codes = characters.astype(np.int64) - 48
    if codes.size == 0:
        return codes, codes
    last = np.flatnonzero(codes < 32)
    first = np.append(0, last[:-1] + 1)
    place = np.arange(codes.size) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((codes & 31) << (5 * place), first)
    values -= np.where(codes[last] & 16, np.int64(1) << (5 * (last - first + 1)), 0)  # two's complement
    return values, last


def runs_of_ones(rle: Rle) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end (exclusive) of the runs of ones, (R,) int64 each, as pixel numbers in column-major order."""
    edges = decode_counts(rle).cumsum()
    starts = edges[0 : edges.size - 1 : 2]
    ends = edges[1::2]
    filled = ends > starts
    return (starts, ends) if filled.all() else (starts[filled], ends[filled])


def all_runs_of_ones(rles: Sequence[Rle]) -> tuple[np.ndarray, np.ndarray]:
    """`runs_of_ones` of many masks of one size at once, in images that follow one another: H * W is added for each."""
    if not rles:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    texts = [_codes(rle) for rle in rles]
    values, last = _numbers(np.concatenate(texts))
    sizes = np.diff(np.searchsorted(last, np.cumsum([text.size for text in texts])), prepend=0)
    order = np.arange(values.size) - np.repeat(sizes.cumsum() - sizes, sizes)  # within each mask
    ones = order % 2 == 1
    for chosen, count in ((ones, sizes // 2), (~ones & (order > 0), (sizes - 1).clip(min=0) // 2)):
        values[chosen] = _cumsum_each(values[chosen], count)
    edges = _cumsum_each(values, sizes)
    height, width = rles[0]["size"]
    ends = edges[ones] + np.repeat(np.arange(len(rles)) * (height * width), sizes // 2)
    lengths = values[ones]
    filled = lengths > 0
    return (ends - lengths)[filled], ends[filled]


def _cumsum_each(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The cumulative sums of arrays of these sizes that lie one after the other."""
    total = np.append(0, values.cumsum())
    return total[1:] - np.repeat(total[sizes.cumsum() - sizes], sizes)


def decode_window(rle: Rle, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """The mask's pixels within a box inside the image, bool (bottom - top, right - left); costs the runs of the mask
    and the pixels of the box, however large the image is."""
    column, begin, end = column_runs(*runs_of_ones(rle), rle["size"][0])
    begin, end = begin.clip(min=top), end.clip(max=bottom)
    inside = (column >= left) & (column < right) & (begin < end)
    change = np.zeros((right - left, bottom - top + 1), np.int8)
    change[column[inside] - left, begin[inside] - top] = 1
    change[column[inside] - left, end[inside] - top] -= 1
    return change[:, :-1].cumsum(axis=1, dtype=np.int8).astype(bool).T


def column_runs(starts: np.ndarray, ends: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of ones of one mask (see `runs_of_ones`), cut where they go on in the next column: column, first row and
    one past the last row of each piece, (R,) int64, column by column and downwards."""
    run, column = _pieces(starts, ends, height)
    begin = np.maximum(starts[run] - column * height, 0)
    return column, begin, np.minimum(ends[run] - column * height, height)


def _pieces(starts: np.ndarray, ends: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """For each piece of runs that are cut at the columns' ends: the run and the column."""
    pieces = (ends - 1) // height - starts // height + 1
    run = np.repeat(np.arange(starts.size), pieces)
    return run, starts[run] // height + np.arange(run.size) - np.repeat(pieces.cumsum() - pieces, pieces)


def encode_runs(
    masks: np.ndarray, starts: np.ndarray, ends: np.ndarray, count: int, image_size: tuple[int, int]
) -> EncodedMasks:
    """`count` masks from their runs of ones (column-major pixel numbers), sorted by mask and place: (R,) each.

    Runs may cross from one column into the next.
    """
    toggles = np.stack([starts, ends], axis=1) + (masks * (image_size[0] * image_size[1] + 1))[:, None]
    return encode_toggles(toggles.reshape(-1), count, image_size)


def _boxes_and_areas(
    start: np.ndarray, end: np.ndarray, first: np.ndarray, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bounding boxes (N,4) float32 xyxy and areas (N,) int64 from runs; `first` (N+1,) says where each mask's begin."""
    boxes = np.zeros((len(first) - 1, 4), np.float32)
    areas = np.zeros(len(first) - 1, np.int64)
    filled = np.flatnonzero(np.diff(first))
    if filled.size == 0:
        return boxes, areas
    left, right = start // height, (end - 1) // height
    # A run that crosses into another column holds a column's last pixel and the next one's first.
    top = np.where(right > left, 0, start - left * height)
    bottom = np.where(right > left, height, end - right * height)
    begin = first[filled]
    boxes[filled, 0] = left[begin]
    boxes[filled, 1] = np.minimum.reduceat(top, begin)
    boxes[filled, 2] = right[first[filled + 1] - 1] + 1
    boxes[filled, 3] = np.maximum.reduceat(bottom, begin)
    areas[filled] = np.add.reduceat(end - start, begin, dtype=np.int64)
    return boxes, areas


def _counts(start: np.ndarray, end: np.ndarray, first: np.ndarray, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Alternating run lengths of all masks, and (N+1,) the place where each mask's lengths begin."""
    runs = np.diff(first)
    filled = runs > 0
    tail = np.full(runs.size, pixels, start.dtype)
    tail[filled] -= end[first[1:][filled] - 1]
    has_tail = tail > 0
    offsets = np.concatenate([[0], np.cumsum(2 * runs + has_tail)])
    counts = np.empty(offsets[-1], start.dtype)
    zeros = 2 * np.arange(start.size) + np.repeat(offsets[:-1] - 2 * first[:-1], runs)
    before = np.empty_like(end)
    before[1:] = end[:-1]
    before[first[:-1][filled]] = 0
    counts[zeros] = start - before
    counts[zeros + 1] = end - start
    counts[offsets[1:][has_tail] - 1] = tail[has_tail]
    return counts, offsets


def _compress(counts: np.ndarray, offsets: np.ndarray) -> list[str]:
    """COCO's text form of each mask's run lengths."""
    value = counts.copy()
    value[2:] -= counts[:-2]
    for number in range(3):  # these are written as they are
        own = offsets[:-1] + number
        own = own[own < offsets[1:]]
        value[own] = counts[own]
    size = np.where(value < 0, ~value, value)
    digits = np.ones(value.size, np.int8)
    limit = 16  # five bits hold -16 … 15, ten -512 … 511
    while (more := size >= limit).any():
        digits += more
        limit *= 32
    begin = np.concatenate([[0], np.cumsum(digits, dtype=np.int64)])
    text = np.empty(begin[-1], np.uint8)
    place, at = begin[:-1], 0
    while place.size:
        more = digits > at + 1
        text[place + at] = (value & 31) + np.where(more, 32 + 48, 48)
        chosen = np.flatnonzero(more)
        place, value, digits = place[chosen], value[chosen] >> 5, digits[chosen]
        at += 1
    ends = begin[offsets].tolist()
    whole = text.tobytes().decode("ascii")
    return [whole[begin:end] for begin, end in itertools.pairwise(ends)]
