"""Where the outlines of window masks cross the columns of an image, at little more than the cost of the outlines.

A mask is resampled onto the image's pixels and thresholded; what its run-length code needs is only where, going down
each column of the image, the sign of the resampled logits changes. Almost all of a mask is far from its outline, and
where all mask pixels that a pixel is made from lie on one side of the threshold, so does the pixel, without arithmetic.
Only near the outline are logits interpolated:

- A mask that is enlarged is interpolated bilinearly. In a column of the image the logits are then linear between two
  rows of the mask, and the place where they cross the threshold follows from the two ends.
- A mask that is made smaller is averaged with triangles as wide as an image pixel to either side. The few pixels on the
  outline are computed one by one.

The crossings of a mask are its *toggles*: numbers of the pixels, counted down the columns, where it starts or stops.
Two equal toggles cancel out, so that nobody has to look after masks that touch the border of their window.

The same code runs on NumPy arrays (CPU, where NumPy is several times faster at this than PyTorch) and on tensors of a
CUDA device: `xp` is the module, numpy or torch.

Shape letters: N windows, M mask side, H W image, h w the pixels a window covers, C cells of four neighbouring mask
pixels that do not all lie on one side of the threshold, E crossings.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

# An array of NumPy or a tensor of PyTorch, the same kind within one call.
Array = Any

# Logits beyond this are taken as this: zero weights must not meet infinities.
_LIMIT = 1e4
# Cells times columns of the image that are interpolated at a time, about 50 bytes each.
_PIECE = 1_000_000


@dataclass(frozen=True)
class Spans:
    """Where N windows lie along one axis of the image.

    Attributes:
        step: mask pixels for one image pixel.
        begin: (N,) float64, the windows' exact begin in image pixels; may be negative.
        first, last: (N,) int64, the first and one past the last image pixel whose centre lies in window and image.
    """

    step: float
    begin: np.ndarray
    first: np.ndarray
    last: np.ndarray


def window_toggles(
    logits: torch.Tensor, down: Spans, across: Spans, threshold_logit: float, image_size: tuple[int, int]
) -> np.ndarray:
    """The sorted toggles of N window masks (N,M,M): int64 numbers n * (H * W + 1) + x * H + y for mask n.

    Each mask has an even number of them, and pixel (x, y) is set where an odd number lies at or before it. A pixel is
    set where its logit is strictly greater than `threshold_logit`; a logit that is no number never is.
    """
    if logits.shape[0] == 0:
        return np.zeros(0, np.int64)
    values = _as_array(logits)
    both_enlarge = max(down.step, across.step) <= 1
    find = _between_mask_pixels if both_enlarge and logits.shape[-1] > 1 else _at_image_pixels
    return find(values, down, across, threshold_logit, image_size)


def window_stability(
    logits: torch.Tensor, down: Spans, across: Spans, threshold_logit: float, offset: float, image_size: tuple[int, int]
) -> np.ndarray:
    """(N,) float32, the IoU of the masks (N,M,M) at `threshold_logit` plus and minus `offset`; 0 where both are empty.

    One lies within the other, so that it is the ratio of their areas. These are counted in the mask's own pixels, of
    which those in the image count: two more masks need not be put on the image's pixels.
    """
    values = _as_array(logits)
    centres = (span.begin[:, None] + (np.arange(logits.shape[-1]) + 0.5) / span.step for span in (down, across))
    rows, cols = ((at >= 0) & (at < size) for at, size in zip(centres, image_size, strict=True))
    inside = _like(values, rows[:, :, None] & cols[:, None, :])
    high, low = (
        _module(values).count_nonzero(((values > level) & inside).reshape(len(logits), -1), 1)
        for level in (threshold_logit + offset, threshold_logit - offset)
    )
    if isinstance(high, torch.Tensor):
        high, low = high.cpu().numpy(), low.cpu().numpy()
    return np.asarray(high / np.maximum(low, 1), np.float32)


def _between_mask_pixels(
    logits: Array, down: Spans, across: Spans, threshold: float, image_size: tuple[int, int]
) -> np.ndarray:
    """Toggles of masks that are not made smaller on either axis."""
    xp = _module(logits)
    height, width = image_size
    side = logits.shape[-1]
    first, last, begin = (_like(logits, part) for part in (down.first, down.last, down.begin))
    # Cell (i, j) has the corners (i, j) … (i + 1, j + 1) in the mask; -1 and M are one pixel outside of it. There the
    # mask goes on to the left and right as on its edge, but ends above and below.
    n, i, j = _mixed_cells(logits > threshold)
    # Columns of the image in cell j: from edges[n, j + 1] to edges[n, j + 2]; cells at the sides end with the window.
    edges = np.ceil((np.arange(-1, side + 1) + 0.5) / across.step + across.begin[:, None] - 0.5)
    edges[:, 0], edges[:, -1] = across.first, across.last
    edges = _like(logits, edges.clip(across.first[:, None], across.last[:, None]).astype(np.int32)).reshape(-1)
    place = n * (side + 2) + j + 1
    left, right = edges[place], edges[place + 1]
    filled = _places(right > left)
    n, i, j, left, right = (part[filled] for part in (n, i, j, left, right))
    if n.shape[0] == 0:
        return np.zeros(0, np.int64)
    upper, lower = ((n * side + row.clip(0, side - 1)) * side for row in (i, i + 1))
    nearer, farther = j.clip(0, side - 1), (j + 1).clip(0, side - 1)
    flat = logits.reshape(-1)
    corners = [
        (flat[row + column] - threshold).clip(-_LIMIT, _LIMIT) for row in (upper, lower) for column in (nearer, farther)
    ]
    begin_x = _like(logits, across.begin)
    found = []
    for part in _pieces(n.shape[0], int((right - left).max())):
        cell_n, cell_i = n[part], i[part]
        x = left[part] + _like(logits, np.arange(int((right - left)[part].max()), dtype=np.int32))[:, None]  # (k, C)
        weight = (((x + 0.5) - begin_x[cell_n]) * across.step - 0.5 - j[part]).clip(0, 1)
        one, two = xp.asarray(1 - weight, dtype=xp.float32), xp.asarray(weight, dtype=xp.float32)
        above, below = (one * corners[row][part] + two * corners[row + 1][part] for row in (0, 2))
        above, below = xp.where(cell_i < 0, -1, above), xp.where(cell_i == side - 1, -1, below)
        crossing = _places(((above > 0) ^ (below > 0)) & (x < right[part]))  # (E,)
        cell = crossing % cell_n.shape[0]
        above, below = (xp.asarray(ends.reshape(-1)[crossing], dtype=xp.float64) for ends in (above, below))
        window, row = cell_n[cell], cell_i[cell]
        place = (row + 0.5 + xp.nan_to_num(above / (above - below))) / down.step + begin[window] - 0.5
        y = xp.where(below > 0, xp.floor(place) + 1, xp.ceil(place))
        y = xp.where(row < 0, 0, xp.where(row == side - 1, height, y))
        y = xp.asarray(y, dtype=xp.int64).clip(first[window], last[window])
        window, x = (xp.asarray(part, dtype=xp.int64) for part in (window, x.reshape(-1)[crossing]))
        found.append(window * (height * width + 1) + x * height + y)
    return _sorted(xp.concatenate(found))


def _mixed_cells(up: Array) -> tuple[Array, Array, Array]:
    """The cells between the pixels of masks (N,M,M) bool whose corners are not all equal: window, row and column, int32
    each, with rows and columns from -1, where the upper or left corners lie outside of the mask, to M - 1."""
    xp = _module(up)
    count, side = up.shape[0], up.shape[-1] + 2
    padded = _like(up, np.zeros((count, side, side), bool))
    padded[:, 1:-1, 1:-1] = up
    padded[:, :, 0], padded[:, :, -1] = padded[:, :, 1], padded[:, :, -2]
    # On one flat array every operation is a single run over memory. What comes out for the last column, where the next
    # row begins, is meaningless; where the next window begins, no corner is inside.
    flat = padded.reshape(-1)
    rows = flat[side:] ^ flat[:-side]
    mixed = rows[1:] | rows[:-1]
    mixed |= (flat[1:] ^ flat[:-1])[: mixed.shape[0]]
    mixed[side - 1 :: side] = False
    place = xp.asarray(_places(mixed), dtype=xp.int32)
    row = place // side
    window = row // side
    return window, row - window * side - 1, place - row * side - 1


def _at_image_pixels(
    logits: Array, down: Spans, across: Spans, threshold: float, image_size: tuple[int, int]
) -> np.ndarray:
    """Toggles of any masks, at the cost of looking at every image pixel that they cover."""
    side = logits.shape[-1]
    rows, row_weights = _taps(down, side)  # (N,h), (T,N,h)
    cols, col_weights = _taps(across, side)  # (N,w), (T',N,w)
    count, h, w = *rows.shape, cols.shape[1]
    taps_down, taps_across = len(row_weights), len(col_weights)
    # 0: all mask pixels under an image pixel lie below the threshold, 2: all above it, 1: it must be computed.
    up = (logits > threshold).reshape(-1)
    level = _like(logits, np.zeros(up.shape[0], np.uint8))
    some = _any_of(_any_of(up, taps_across, 1), taps_down, side)
    level[: some.shape[0]] = some
    level[: some.shape[0]] += ~_any_of(_any_of(~up, taps_across, 1), taps_down, side)
    # The levels of the image pixels, down the columns; rows of an array are moved much faster than single numbers.
    windows = np.arange(count)[:, None] * side
    level = level.reshape(-1, side)[_like(logits, windows + rows).reshape(-1)].reshape(count, h, side)
    level = level.swapaxes(1, 2).reshape(-1, h)[_like(logits, windows + cols).reshape(-1)].reshape(count, w, h)
    level *= _like(logits, np.arange(h) < (down.last - down.first)[:, None])[:, None, :]
    level[_like(logits, np.arange(w) >= (across.last - across.first)[:, None])] = 0
    on = _like(logits, np.zeros((count, w, h + 1), bool))  # no mask reaches the last row, so that none runs on
    on[:, :, :-1] = level == 2

    unsure = _places(level == 1)
    column = unsure // h  # in (N,w)
    window = column // w
    row = window * h + unsure - column * h  # in (N,h)
    top = (window * side + _like(logits, rows).reshape(-1)[row]) * side + _like(logits, cols).reshape(-1)[column]
    across_weights = [_like(logits, col_weights[s]).reshape(-1)[column] for s in range(taps_across)]
    flat, total = logits.reshape(-1), 0
    for t in range(taps_down):
        line = 0
        for s in range(taps_across):
            line = line + across_weights[s] * (flat[top + (t * side + s)] - threshold).clip(-_LIMIT, _LIMIT)
        total = total + _like(logits, row_weights[t]).reshape(-1)[row] * line
    if unsure.shape[0]:
        on.reshape(-1)[unsure + column] = total > 0
    return column_toggles(on, across.first, down.first, image_size)


def _taps(span: Spans, side: int) -> tuple[np.ndarray, np.ndarray]:
    """For every covered image pixel the first of T mask pixels that it is made from, (N,n) int64, and their weights
    (T,N,n) float32.

    The weights are a triangle around the pixel's centre, one mask pixel wide to either side when enlarging (bilinear
    interpolation, constant beyond the outermost centres) and one image pixel wide when shrinking (so that no mask pixel
    is skipped).
    """
    reach = max(1.0, span.step)
    count = min(side, math.ceil(2 * reach))
    pixel = span.first[:, None] + np.arange(int((span.last - span.first).max(initial=0)))
    centre = (pixel + 0.5 - span.begin[:, None]) * span.step
    first = (np.floor(centre - 0.5 - reach) + 1).clip(0, side - count).astype(np.int64)
    weights = 1 - np.abs(first + np.arange(count)[:, None, None] + 0.5 - centre) / reach
    weights = weights.clip(min=0)
    weights /= weights.sum(axis=0).clip(min=1e-6)
    return first, weights.astype(np.float32)


def _any_of(flags: Array, count: int, step: int) -> Array:
    """Whether any of flags[i], flags[i + step], … is set, `count` of them; shorter by what lies beyond the end."""
    reach = 1
    while reach < count:
        shift = min(reach, count - reach)
        flags = flags[: -shift * step] | flags[shift * step :]
        reach += shift
    return flags


def column_toggles(columns: Array, lefts: np.ndarray, tops: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """The sorted toggles of masks given pixel by pixel, as from `window_toggles`.

    Args:
        columns: (N,w,h) bool with nothing in the last row: `columns[n, x, y]` is the image pixel (lefts[n] + x,
            tops[n] + y). Set pixels must lie in the image.
    """
    height, width = image_size
    _, w, h = columns.shape
    flat = columns.reshape(-1)
    if flat.shape[0] == 0:
        return np.zeros(0, np.int64)
    # The last row of every window is empty, so that no run goes on from one column or mask to the next.
    change = _places(flat[1:] ^ flat[:-1]) + 1
    if isinstance(change, torch.Tensor):  # only the edges leave the device
        change = change.cpu().numpy()
    if bool(flat[0]):
        change = np.insert(change, 0, 0)
    column = change // h
    mask = column // w
    origin = np.asarray(lefts, np.int64) * height + np.asarray(tops, np.int64)
    place = origin[mask] + (column - mask * w) * height + (change - column * h)
    return mask * (height * width + 1) + place


def _pieces(count: int, width: int) -> Iterator[slice]:
    step = max(1, _PIECE // max(1, width))
    for begin in range(0, count, step):
        yield slice(begin, begin + step)


def _as_array(logits: torch.Tensor) -> Array:
    values = logits.float().contiguous()
    return values.numpy() if values.device.type == "cpu" else values


def _module(array: Array) -> Any:
    return torch if isinstance(array, torch.Tensor) else np


def _like(array: Array, values: np.ndarray) -> Array:
    """`values` as what `array` is: a NumPy array, or a tensor on its device."""
    return torch.from_numpy(values).to(array.device) if isinstance(array, torch.Tensor) else values


def _places(flags: Array) -> Array:
    """Where a bool array, flattened, is set: (K,) integers, ascending."""
    return flags.reshape(-1).nonzero()[:, 0] if isinstance(flags, torch.Tensor) else np.flatnonzero(flags)


def _sorted(numbers: Array) -> np.ndarray:
    return numbers.sort().values.cpu().numpy() if isinstance(numbers, torch.Tensor) else np.sort(numbers)
