"""Where the windows of a rescaled image lie in the original one, which of them are best, and their masks put there.

Two pixel systems: those of the image (H,W) as given, and those of the rescaled image the network sees. Coordinates are
continuous, pixel i spans [i, i + 1] and has its centre at i + 0.5. The rescaled size is a whole number, so the true
factor rescaled/original differs a little from 2^exponent and between the axes; all geometry uses the true factors,
since with the nominal one masks would drift by up to half a rescaled pixel's worth towards the far edges.

Shape letters: N windows, P patch side, M mask side, H W image, h w the pixels
a window covers.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from sharpmask.proposals.outlines import Spans, window_stability, window_toggles
from sharpmask.proposals.rle import EncodedMasks, encode_toggles, join_encoded

# One window each: score logit, scale index, grid cell, number of the tile that holds its features (see pyramid.py) and
# place of its finished mask (-1: not decoded yet).
CANDIDATE = np.dtype([("logit", "f4"), ("scale", "i4"), ("row", "i4"), ("col", "i4"), ("tile", "i4"), ("mask", "i4")])


@dataclass(frozen=True)
class Grid:
    """The windows of one rescaled image: cell (row, col) is the P x P window centred at rescaled pixel
    (stride * row + offset, stride * col + offset).

    Attributes:
        image_size: (H, W) of the original.
        rescaled_size: (H, W) after rescaling, without padding.
        patch_size: P in rescaled pixels.
        stride: rescaled pixels between neighbouring windows.
        offset: rescaled pixels from the corner of the image to the first window's centre, less than the stride.
    """

    image_size: tuple[int, int]
    rescaled_size: tuple[int, int]
    patch_size: int
    stride: int
    offset: int = 0

    @property
    def factors(self) -> tuple[float, float]:
        """True scale factors (vertical, horizontal): rescaled pixels for one pixel of the image."""
        return self.rescaled_size[0] / self.image_size[0], self.rescaled_size[1] / self.image_size[1]

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells whose centre lies within the rescaled image or on its edge; at least one."""
        height, width = (max(1, (side - self.offset) // self.stride + 1) for side in self.rescaled_size)
        return height, width

    @property
    def padded_cells(self) -> tuple[int, int]:
        """Rows and columns after padding by P/2 on every side and then up to a multiple of the stride."""
        height, width = (max(1, -(-(side - self.offset) // self.stride) + 1) for side in self.rescaled_size)
        return height, width

    def inner_cells(self, border: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Spans (begin, end) of the rows and columns of cells whose centre lies at least `border` rescaled pixels from
        the edges of the rescaled image; of a side too short for that, the row or column nearest to the middle."""
        spans = []
        for size, count in zip(self.rescaled_size, self.cells, strict=True):
            begin = max(0, -(-(border - self.offset) // self.stride)) if border else 0
            end = (size - border - self.offset) // self.stride + 1 if border else count
            if begin >= end:
                begin = max(0, min(count - 1, round((size / 2 - self.offset) / self.stride)))
                end = begin + 1
            spans.append((begin, end))
        return spans[0], spans[1]

    def padded_inner_cells(self, border: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The same, with the padded cells after the last one where that is kept."""
        rows, cols = (
            (begin, padded if end == count else end)
            for (begin, end), count, padded in zip(self.inner_cells(border), self.cells, self.padded_cells, strict=True)
        )
        return rows, cols

    def padding_before(self, first_cell: tuple[int, int]) -> tuple[int, int]:
        """Grey pixels above and to the left of the rescaled image in a tile whose cell (0, 0) is `first_cell`; none
        where the tile begins inside the image."""
        top, left = (max(0, self.patch_size // 2 - self.offset - self.stride * cell) for cell in first_cell)
        return top, left

    def windows(self, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
        """Boxes (N,4) float64 xyxy in image pixels of the whole windows; they may reach beyond the image."""
        tops, bottoms = self._spans(rows, 0)
        lefts, rights = self._spans(cols, 1)
        return np.stack([lefts, tops, rights, bottoms], axis=1)

    def _spans(self, cells: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Begin and end of windows along one axis (0 vertical), in image pixels."""
        middle, half = self.stride * np.asarray(cells, np.float64) + self.offset, self.patch_size / 2
        return (middle - half) / self.factors[axis], (middle + half) / self.factors[axis]

    def covered_pixels(self, cells: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """First and one past the last image pixel whose centre lies in the windows, clipped to the image: int64."""
        begin, end = self._spans(cells, axis)
        size = self.image_size[axis]
        first = np.clip(np.ceil(begin - 0.5), 0, size).astype(np.int64)
        last = np.clip(np.ceil(end - 0.5), first, size).astype(np.int64)
        return first, last

    def spans(self, cells: np.ndarray, axis: int, mask_side: int) -> Spans:
        """The windows along one axis, for masks of M pixels a side."""
        step = self.factors[axis] * mask_side / self.patch_size
        return Spans(step, self._spans(cells, axis)[0], *self.covered_pixels(cells, axis))


def rescaled_grid(
    image_size: tuple[int, int], exponent: float, *, patch_size: int, stride: int, offset: int = 0
) -> Grid:
    """The grid of an image rescaled by 2^exponent, each side rounded to whole pixels and at least 1."""
    height, width = (max(1, int(side * 2.0**exponent + 0.5)) for side in image_size)
    return Grid(image_size, (height, width), patch_size, stride, offset)


def select_top(candidates: np.ndarray, count: int) -> np.ndarray:
    """The `count` best of a CANDIDATE array, best first; equal scores in the order of scale, row and column."""
    if len(candidates) > count:
        cut = np.partition(candidates["logit"], len(candidates) - count)[len(candidates) - count]
        candidates = candidates[candidates["logit"] >= cut]
    order = np.lexsort((candidates["col"], candidates["row"], candidates["scale"], -candidates["logit"]))
    return candidates[order[:count]]


def paste_windows(
    mask_logits: torch.Tensor,
    grid: Grid,
    rows: np.ndarray,
    cols: np.ndarray,
    threshold_logit: float,
    *,
    stability_offset: float | None = None,
    chunk: int | None = None,
) -> EncodedMasks:
    """Resample window masks onto the image's pixels, threshold and encode them; no full-size mask is ever built.

    Args:
        mask_logits: (N,M,M), covering the whole window of each cell.
        grid: the grid of the rescaled image the windows belong to.
        rows, cols: (N,) cells.
        threshold_logit: a pixel is set where its logit is strictly greater.
        stability_offset: compute `stability`, the IoU of the masks at `threshold_logit` plus and minus this (greater
            than 0), counted in the mask's own pixels that lie in the image. 0 where both are empty.
        chunk: windows to work on at a time, with about 10 bytes for each pixel of their masks; None:
            64 on a CPU, whose caches hold them, and 1024 elsewhere.
    """

    def paste(part: slice) -> EncodedMasks:
        logits = mask_logits[part]
        spans = [grid.spans(cells[part], axis, mask_logits.shape[-1]) for axis, cells in ((0, rows), (1, cols))]

        toggles = window_toggles(logits, spans[0], spans[1], threshold_logit, grid.image_size)
        encoded = encode_toggles(toggles, logits.shape[0], grid.image_size)
        if stability_offset is None:
            return encoded
        stability = window_stability(logits, spans[0], spans[1], threshold_logit, stability_offset, grid.image_size)
        return replace(encoded, stability=stability)

    # On a CPU in one thread: sharing these small steps of NumPy out among two was slower (`sharpmask bench`).
    size = chunk or (64 if mask_logits.device.type == "cpu" else 1024)
    return join_encoded([paste(slice(begin, begin + size)) for begin in range(0, len(rows), size)])
