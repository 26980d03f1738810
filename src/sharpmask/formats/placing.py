"""Where an outline's coordinates are counted from: the photo's pixels, the ground, or longitude and latitude."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sharpmask.formats.contours import Part
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.folder import Photo
from sharpmask.proposals.ground import Ground
from sharpmask.proposals.result import Proposals

WGS84 = "OGC:CRS84"
# Straight edges of a map are bent in longitude and latitude: longer ones get points in between.
_STRAIGHT_PIXELS = 64


@dataclass(frozen=True)
class Placing:
    """How one photo's outlines are written.

    Attributes:
        ground: the photo's place, None for pixels.
        wgs84: whether longitude and latitude are written, not the photo's own system.
    """

    ground: Ground | None
    wgs84: bool = False

    @property
    def crs(self) -> str | None:
        """The coordinate system of what is written, as authority and code or as WKT; None for pixels, or where the
        photo's transform leads to an unnamed one."""
        return WGS84 if self.wgs84 else self.ground.name if self.ground else None

    @property
    def meaning(self) -> str:
        """The coordinates in words."""
        if self.ground is None:
            return "pixels, x to the right, y downwards, origin at the upper left corner of the image"
        if self.wgs84:
            return "degrees, longitude and latitude in WGS 84"
        return "x and y of the image's own transform" + (f", {self.crs}" if self.crs else "; it names no system")

    @cached_property
    def digits(self) -> int:
        """Decimals that tell a thousandth of a pixel."""
        if self.ground is None:
            return 3
        side = self.ground.pixel_side
        if self.wgs84:
            corner, right, below = self.ground.to_wgs84(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
            side = min(np.hypot(*(right - corner)), np.hypot(*(below - corner)))
        return max(0, 3 - math.floor(math.log10(side)))

    def polygons(self, parts: list[Part]) -> list[list[np.ndarray]]:
        """For each part its rings, closed, the shell first: (n,2) float64. Shells have a positive and holes a negative
        area by the signs of the numbers written."""
        rings = [[np.concatenate([ring, ring[:1]]) for ring in (part.shell, *part.holes)] for part in parts]
        return rings if self.ground is None else [[self._place(ring) for ring in polygon] for polygon in rings]

    def _place(self, ring: np.ndarray) -> np.ndarray:
        assert self.ground is not None
        placed = self.ground.to_wgs84(_with_points_between(ring)) if self.wgs84 else self.ground.to_ground(ring)
        return placed[::-1] if self.ground.mirrors else placed

    def square_metres(self, proposals: Proposals, index: int) -> float | None:
        """The ground that a mask covers; None where that is not known."""
        if self.ground is None:
            return None
        left, top, right, bottom = proposals.boxes[index].tolist()
        pixel = self.ground.square_metres((left + right) / 2, (top + bottom) / 2)
        return None if pixel is None else pixel * int(proposals.areas[index])


def place(photo: Photo, options: FormatOptions) -> Placing:
    """What the options ask for where the photo lies on the ground, else pixels."""
    if photo.ground is None or options.coordinates == "pixels":
        return Placing(None)
    return Placing(photo.ground, options.coordinates == "wgs84" and photo.ground.crs is not None)


def _with_points_between(ring: np.ndarray) -> np.ndarray:
    """A closed ring (n,2) whose edges are at most `_STRAIGHT_PIXELS` long."""
    lengths = np.hypot(*np.diff(ring, axis=0).T)
    pieces = np.maximum(1, np.ceil(lengths / _STRAIGHT_PIXELS)).astype(np.int64)
    if (pieces == 1).all():
        return ring
    at = np.concatenate([start + np.arange(count) / count for start, count in enumerate(pieces)] + [[len(pieces)]])
    return np.stack([np.interp(at, np.arange(len(ring)), ring[:, axis]) for axis in (0, 1)], axis=1)
