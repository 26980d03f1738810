"""Where a picture lies on the ground: from pixels to the coordinates of a map.

Pixel coordinates are continuous, (x, y) with y downwards, (0, 0) the outer corner of the first pixel, as everywhere in
the package. Everything about coordinate systems is rasterio's, which is imported when it is asked for.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sharpmask.errors import MissingExtraError

# WGS 84: half the longer axis in metres, and the square of the first eccentricity.
_AXIS, _ECCENTRICITY2 = 6378137.0, 0.00669437999014


@dataclass(frozen=True)
class Ground:
    """The position of a picture.

    Attributes:
        transform: (a, b, c, d, e, f): x = a column + b row + c, y = d column + e row + f.
        crs: the coordinate system as WKT; None when the file states a transform only.
    """

    transform: tuple[float, float, float, float, float, float]
    crs: str | None = None

    def to_ground(self, points: np.ndarray) -> np.ndarray:
        """Map coordinates (n,2) of pixel coordinates (n,2)."""
        a, b, c, d, e, f = self.transform
        return points @ np.array([[a, d], [b, e]]) + (c, f)

    def to_wgs84(self, points: np.ndarray) -> np.ndarray:
        """Longitude and latitude in degrees (n,2) of pixel coordinates (n,2); there must be a `crs`."""
        from rasterio.warp import transform

        x, y = self.to_ground(points).T
        return np.stack(transform(self._crs, "OGC:CRS84", x.tolist(), y.tolist())[:2], axis=1)

    @property
    def mirrors(self) -> bool:
        """Whether a ring changes its sense of rotation in the numbers: so it is for pictures with north at the top."""
        a, b, _, d, e, _ = self.transform
        return a * e - b * d < 0

    @property
    def pixel_area(self) -> float:
        """In squares of the map's unit."""
        a, b, _, d, e, _ = self.transform
        return abs(a * e - b * d)

    @property
    def pixel_side(self) -> float:
        """The shorter side of a pixel in the map's unit."""
        a, b, _, d, e, _ = self.transform
        return min(math.hypot(a, d), math.hypot(b, e))

    @cached_property
    def name(self) -> str | None:
        """The coordinate system as authority and code, such as EPSG:25832; WKT where it has none; None without one."""
        if self.crs is None:
            return None
        authority = self._crs.to_authority()
        return ":".join(authority) if authority else self.crs

    def square_metres(self, x: float, y: float) -> float | None:
        """The area of a pixel at pixel coordinates (x, y); None without a coordinate system of known unit.

        Projected systems: in the plane of the map, as other programs' `area` does it, so with the map's distortion.
        Geographic ones: on the ellipsoid WGS 84 at the pixel's latitude.
        """
        if self.crs is None:
            return None
        from rasterio.errors import CRSError

        crs = self._crs
        try:
            if not crs.is_geographic:
                return self.pixel_area * crs.linear_units_factor[1] ** 2
        except CRSError:  # neither projected nor geographic, such as a plan of a building
            return None
        latitude = math.radians(float(self.to_ground(np.array([[x, y]]))[0, 1]))
        waist = 1 - _ECCENTRICITY2 * math.sin(latitude) ** 2
        north = _AXIS * (1 - _ECCENTRICITY2) / waist**1.5  # metres for a radian along the meridian
        east = _AXIS * math.cos(latitude) / math.sqrt(waist)
        return self.pixel_area * math.radians(1) ** 2 * north * east

    @cached_property
    def _crs(self) -> Any:
        try:
            from rasterio.crs import CRS
        except ImportError as error:
            raise MissingExtraError("rasterio", "geo", "a picture's coordinate system") from error
        return CRS.from_wkt(self.crs)
