"""Large pictures, read part by part.

A raster is seen at any whole `step`: the picture whose pixel (r, c) is the mean of the step x step pixels from
(r step, c step) on, cut off at the far edges. What is read at a time is one part of that picture, as 8-bit RGB, and
where it has data. Shape letters: h w the sides of a part, H W those of the picture.
"""

from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from sharpmask.proposals.ground import Ground

_COPIED_PIXELS = 4_000_000  # of a picture in memory, to be reduced


class Part(NamedTuple):
    """`pixels` (h,w,3) uint8, mid grey without data; `valid` (h,w) bool, None where all is."""

    pixels: np.ndarray
    valid: np.ndarray | None


class Raster(Protocol):
    """A picture that can be read in parts.

    Attributes:
        size: (H, W).
        ground: its place on the ground; None without.
        reduces: whether it saves work to read it reduced.
    """

    size: tuple[int, int]
    ground: Ground | None
    reduces: bool

    def read(self, rows: tuple[int, int], cols: tuple[int, int], step: int) -> Part:
        """Rows [begin, end) and columns [begin, end) of the picture reduced by `step`."""
        ...


class ArrayRaster:
    """A picture in memory, (H,W,3) uint8."""

    ground: Ground | None = None
    reduces = False

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.size = (pixels.shape[0], pixels.shape[1])

    def read(self, rows: tuple[int, int], cols: tuple[int, int], step: int) -> Part:
        if step == 1:
            return Part(self.pixels[rows[0] : rows[1], cols[0] : cols[1]], None)
        reduced = np.empty((rows[1] - rows[0], cols[1] - cols[0], 3), np.uint8)
        at_once = max(1, _COPIED_PIXELS // ((cols[1] - cols[0]) * step * step))
        for row in range(rows[0], rows[1], at_once):
            last = min(row + at_once, rows[1])
            part = self.pixels[row * step : last * step, cols[0] * step : cols[1] * step]
            reduced[row - rows[0] : last - rows[0]] = np.asarray(
                Image.fromarray(np.ascontiguousarray(part)).reduce(step)
            )
        return Part(reduced, None)
