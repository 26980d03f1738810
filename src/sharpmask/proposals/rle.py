"""Window masks to COCO run-length encoding, at the cost of the windows and not of N full-size images.

COCO's encoding of a mask (H,W) walks the pixels column by column (down each column, columns from left to right) and
lists the lengths of the runs of zeros and ones in turn, zeros first. Its compressed form writes each length, from the
fourth on as the difference to the length two before, as a little-endian number of 5-bit digits (bit 5 of a character:
more digits follow), each character offset by 48.

Shape letters: N masks, w and h the sides of the windows, H and W those of the image.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

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


def encode_windows(
    columns: torch.Tensor | np.ndarray, lefts: np.ndarray, tops: np.ndarray, image_size: tuple[int, int]
) -> EncodedMasks:
    """Encode N masks given in windows of one size; the result equals `pycocotools.mask.encode` of the pasted masks.

    Args:
        columns: (N,w,h) bool, transposed: `columns[n, x, y]` is the image pixel (lefts[n] + x, tops[n] + y). Parts of
            a window outside the image must be zero. A last row of zeros saves one copy.
        lefts: (N,) integers, image column of each window's first column; `tops` the row of its first row.
        image_size: (H, W).

    Raises:
        ValueError: a set pixel lies outside the image.
    """
    columns = torch.as_tensor(columns)
    height, width = image_size
    count = columns.shape[0]
    if count == 0:
        return EncodedMasks([], np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    if columns.numel() == 0:
        columns = columns.new_zeros((count, 1, 1))
    elif bool(columns[:, :, -1].any()):
        columns = functional.pad(columns, (0, 1))
    mask, left, top, length = _column_runs(columns)
    left, top = left + np.asarray(lefts, np.int64)[mask], top + np.asarray(tops, np.int64)[mask]
    if mask.size and (left.min() < 0 or top.min() < 0 or left.max() >= width or (top + length).max() > height):
        raise ValueError(f"a mask has pixels outside the image of {width}x{height}")
    boxes, areas = _boxes_and_areas(mask, left, top, length, count)
    start = left * height + top
    counts, offsets = _counts(mask, start, start + length, count, height * width)
    strings = _compress(counts, offsets)
    return EncodedMasks([{"size": [height, width], "counts": text} for text in strings], boxes, areas)


def decode_counts(rle: Rle) -> np.ndarray:
    """The run lengths (K,) int64 of a compressed RLE, zeros first: the inverse of COCO's text form."""
    text = rle["counts"]
    codes = np.frombuffer(text if isinstance(text, bytes) else text.encode("ascii"), np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return codes
    last = np.flatnonzero(codes < 32)
    first = np.append(0, last[:-1] + 1)
    place = np.arange(codes.size) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((codes & 31) << (5 * place), first)
    values -= np.where(codes[last] & 16, np.int64(1) << (5 * (last - first + 1)), 0)  # two's complement
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values


def runs_of_ones(rle: Rle) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end (exclusive) of the runs of ones, (R,) int64 each, as pixel numbers in column-major order."""
    edges = decode_counts(rle).cumsum()
    starts = edges[0 : edges.size - 1 : 2]
    ends = edges[1::2]
    filled = ends > starts
    return (starts, ends) if filled.all() else (starts[filled], ends[filled])


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
    height, width = image_size
    if count == 0:
        return EncodedMasks([], np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    run, column = _pieces(starts, ends, height)  # cut, so that boxes can be taken from them
    begin = np.maximum(starts[run], column * height)
    end = np.minimum(ends[run], (column + 1) * height)
    boxes, areas = _boxes_and_areas(masks[run], column, begin - column * height, end - begin, count)
    counts, offsets = _counts(masks, starts, ends, count, height * width)
    strings = _compress(counts, offsets)
    return EncodedMasks([{"size": [height, width], "counts": text} for text in strings], boxes, areas)


def _column_runs(columns: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertical runs of ones in reading order: (mask index, column, row, length), each (R,) int64.

    The last row of every window is zero, so no run crosses from one column or mask to the next and the changes in the
    flattened array are start, end, start, end, …
    """
    _, w, h = columns.shape
    flat = columns.reshape(-1)
    if flat.is_cuda:  # only the edges leave the device
        edges = (flat[1:] != flat[:-1]).nonzero()[:, 0].cpu().numpy() + 1
    else:
        values = flat.numpy()
        edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    if bool(flat[0]):
        edges = np.insert(edges, 0, 0)
    start, length = edges[0::2], edges[1::2] - edges[0::2]
    column, row = np.divmod(start, h)
    mask, column = np.divmod(column, w)
    return mask, column, row, length


def _boxes_and_areas(
    mask: np.ndarray, left: np.ndarray, top: np.ndarray, length: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bounding boxes (N,4) float32 xyxy and areas (N,) int64 from the vertical runs in reading order."""
    boxes = np.zeros((count, 4), np.float32)
    areas = np.zeros(count, np.int64)
    if mask.size == 0:
        return boxes, areas
    first = np.flatnonzero(np.diff(mask, prepend=-1))  # first run of each mask that has one
    last = np.append(first[1:], mask.size) - 1
    filled = mask[first]
    boxes[filled, 0] = left[first]
    boxes[filled, 1] = np.minimum.reduceat(top, first)
    boxes[filled, 2] = left[last] + 1
    boxes[filled, 3] = np.maximum.reduceat(top + length, first)
    areas[filled] = np.add.reduceat(length, first)
    return boxes, areas


def _counts(
    mask: np.ndarray, start: np.ndarray, end: np.ndarray, count: int, pixels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Alternating run lengths of all masks, and (N+1,) the place where each mask's lengths begin.

    `start` and `end` are pixel numbers in column-major order of the whole image.
    """
    # A run that reaches the image's lower edge goes on in a run at the upper edge of the next column.
    joined = np.zeros(mask.size, bool)
    if mask.size:
        joined[1:] = (start[1:] == end[:-1]) & (mask[1:] == mask[:-1])
        mask, start, end = mask[~joined], start[~joined], end[~np.append(joined[1:], False)]
    runs = np.bincount(mask, minlength=count)
    first = np.cumsum(runs) - runs
    tail = np.full(count, pixels, np.int64)
    tail[runs > 0] -= end[(first + runs - 1)[runs > 0]]
    sizes = 2 * runs + (tail > 0)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    counts = np.empty(offsets[-1], np.int64)
    zeros = offsets[mask] + 2 * (np.arange(mask.size) - first[mask])
    before = np.zeros_like(end)
    before[1:] = np.where(mask[1:] == mask[:-1], end[:-1], 0)
    counts[zeros] = start - before
    counts[zeros + 1] = end - start
    counts[(offsets[:-1] + 2 * runs)[tail > 0]] = tail[tail > 0]
    return counts, offsets


def _compress(counts: np.ndarray, offsets: np.ndarray) -> list[str]:
    """COCO's text form of each mask's run lengths."""
    value = counts.copy()
    if counts.size > 3:
        index_in_mask = np.arange(counts.size) - np.repeat(offsets[:-1], np.diff(offsets))
        value[2:] -= np.where(index_in_mask[2:] > 2, counts[:-2], 0)
    places = int(np.abs(value).max()).bit_length() // 5 + 1  # one bit more than the largest magnitude, for the sign
    digits = np.zeros((counts.size, places), np.uint8)
    active = np.arange(counts.size)
    for place in range(places):
        digit = value & 31
        value = value >> 5
        more = np.where(digit & 16, value != -1, value != 0)
        digits[active, place] = digit + np.where(more, 32 + 48, 48)
        active, value = active[more], value[more]
        if active.size == 0:
            break
    used = digits != 0
    ends = np.concatenate([[0], np.cumsum(used.sum(axis=1))])[offsets]
    text = digits[used].tobytes().decode("ascii")
    return [text[begin:end] for begin, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)]
