"""GeoTIFF and its like through rasterio: windows, bands, black and white, places without data.

Only the parts asked for are decoded. `rasterio` is imported when a file is opened.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sharpmask.errors import ImageError
from sharpmask.images import BACKGROUND
from sharpmask.proposals.ground import Ground
from sharpmask.proposals.rasters import Part

# Run-length codes of COCO count pixels in 32 bits.
MOST_PIXELS = 2**32 - 1
# Decoded blocks that GDAL keeps; a file in strips is read several times where a row of tiles exceeds it. In bytes:
# rasterio hands the number on as it is, without GDAL's rule that small ones are megabytes.
CACHE_BYTES = 256_000_000
_SAMPLE_SIDE = 1024  # of the reduced picture that the percentiles are taken from
_PERCENTILES = (2.0, 98.0)

Stretch = tuple[float, float] | str | None


@contextmanager
def open_source(path: Path) -> Iterator[Any]:
    """The file as rasterio's dataset. Raises ImageError when rasterio cannot read it."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        with warnings.catch_warnings(), _translated(path):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(path.absolute())
        with source:
            yield source


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """rasterio's errors as ours."""
    from rasterio.errors import RasterioError

    try:
        yield
    except RasterioError as error:
        raise ImageError(f"{path}: cannot be read: {str(error).splitlines()[0] if str(error) else error!r}") from error


class WindowedRaster:
    """A file open in rasterio, of which only the parts asked for are decoded; see `raster_files.open_raster`."""

    reduces = True

    def __init__(
        self,
        source: Any,
        path: Path,
        *,
        bands: Sequence[int] | None,
        stretch: Stretch,
        max_pixels: int,
    ) -> None:
        self.source, self.path = source, path
        self.size = (source.height, source.width)
        _check_extent(source, path, max_pixels)
        self.bands = _pick_bands(source, path, bands)
        self.palette = _palette(source, self.bands)
        self.ground = _ground(source)
        self._sure = not _is_float(source, self.bands) and all(
            [flag.name for flag in source.mask_flag_enums[band - 1]] == ["all_valid"] for band in self.bands
        )
        self.limits = self._limits(stretch)

    def read(self, rows: tuple[int, int], cols: tuple[int, int], step: int) -> Part:
        height, width = rows[1] - rows[0], cols[1] - cols[0]
        pixels = np.empty((height, width, len(self.bands)), np.uint8)
        valid = None if self._sure else np.empty((height, width), bool)
        for to_rows, from_rows in _spans(rows, step, self.size[0]):
            for to_cols, from_cols in _spans(cols, step, self.size[1]):
                shape = (to_rows.stop - to_rows.start, to_cols.stop - to_cols.start)
                part, seen = self._read_window(from_rows, from_cols, shape)
                pixels[to_rows, to_cols] = part
                if valid is not None:
                    valid[to_rows, to_cols] = seen
        if self.palette is not None:
            pixels = self.palette[pixels[:, :, 0]]
        elif pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        if valid is not None:
            pixels[~valid] = BACKGROUND
        return Part(pixels, None if valid is None or valid.all() else valid)

    def _read_window(
        self, rows: tuple[int, int], cols: tuple[int, int], shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of a window as 8 bits (h,w,bands), and where there is data (h,w)."""
        from rasterio.enums import Resampling

        window = (rows, cols)
        how = Resampling.nearest if self.palette is not None else Resampling.average
        pixels = np.empty((*shape, len(self.bands)), np.uint8)
        valid = np.zeros(shape, bool)
        with _translated(self.path):
            for index, band in enumerate(self.bands):  # one at a time: bands of many bits are larger than the result
                values = self.source.read(band, window=window, out_shape=shape, resampling=how)
                seen = np.ones(shape, bool)
                if not self._sure:
                    seen = self.source.read_masks(band, window=window, out_shape=shape, resampling=how) >= 128
                    if np.issubdtype(values.dtype, np.floating):
                        seen &= np.isfinite(values)
                pixels[:, :, index] = self._to_8_bit(values, index)
                valid |= seen
        return pixels, valid

    def _to_8_bit(self, values: np.ndarray, index: int) -> np.ndarray:
        if self.limits is None:
            return values
        low, high = self.limits[index]
        if np.issubdtype(values.dtype, np.floating):
            values = np.nan_to_num(values, nan=low, posinf=low, neginf=low)
        scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low)) + np.float32(0.5)
        return scaled.clip(0, 255).astype(np.uint8)

    def _limits(self, stretch: Stretch) -> list[tuple[float, float]] | None:
        """What becomes black and white in each band; None: 8-bit values as they are."""
        kinds = {np.dtype(self.source.dtypes[band - 1]) for band in self.bands}
        if self.palette is not None or (kinds == {np.dtype(np.uint8)} and stretch in (None, "none")):
            return None
        if isinstance(stretch, str):
            whole = {np.dtype(np.uint8): 255.0, np.dtype(np.uint16): 65535.0}
            whole |= {np.dtype(np.float32): 1.0, np.dtype(np.float64): 1.0, np.dtype(np.float16): 1.0}
            names = [np.dtype(self.source.dtypes[band - 1]) for band in self.bands]
            unknown = [name for name in names if name not in whole]
            if unknown:
                raise ImageError(
                    f"{self.path}: values of type {unknown[0]} have no natural black and white: stretch them"
                )
            return [(0.0, whole[name]) for name in names]
        low, high = stretch or _PERCENTILES
        return [self._percentiles(band, low, high) for band in self.bands]

    def _percentiles(self, band: int, low: float, high: float) -> tuple[float, float]:
        shrink = max(1, *(-(-side // _SAMPLE_SIDE) for side in self.size))
        shape = (-(-self.size[0] // shrink), -(-self.size[1] // shrink))
        with _translated(self.path):
            values = self.source.read(band, out_shape=shape)
            seen = self.source.read_masks(band, out_shape=shape) >= 128
        if np.issubdtype(values.dtype, np.floating):
            seen &= np.isfinite(values)
        if not seen.any():
            return 0.0, 1.0
        black, white = (float(value) for value in np.percentile(values[seen].astype(np.float64), [low, high]))
        return black, white if white > black else black + 1


def _check_extent(source: Any, path: Path, max_pixels: int) -> None:
    if source.count == 0:
        raise ImageError(
            f"{path}: holds no picture of its own" + (" but several: name one" if source.subdatasets else "")
        )
    if source.width * source.height > MOST_PIXELS:
        raise ImageError(
            f"{path}: {source.width}x{source.height} is more than the {MOST_PIXELS / 1e9:.1f} gigapixels that masks "
            "can be written for; cut it into parts"
        )
    block = max(source.block_shapes, key=lambda shape: shape[0] * shape[1])
    if block[0] * block[1] > max_pixels:
        raise ImageError(
            f"{path}: is stored in blocks of {block[1]}x{block[0]} pixels, of which not even one may be decoded (the "
            f"limit is {max_pixels / 1e6:g} megapixels); store it in tiles: rio convert IN OUT --co TILED=YES"
        )


def _pick_bands(source: Any, path: Path, bands: Sequence[int] | None) -> tuple[int, ...]:
    if bands is None:
        roles = [role.name for role in source.colorinterp]
        if {"red", "green", "blue"} <= set(roles):
            bands = [roles.index(role) + 1 for role in ("red", "green", "blue")]
        else:
            plain = [number for number, role in enumerate(roles, start=1) if role != "alpha"]
            bands = plain[:3] if len(plain) >= 3 else plain[:1]
    if not bands or max(bands) > source.count:
        raise ImageError(f"{path}: has {source.count} bands, so not the bands {','.join(map(str, bands)) or 'needed'}")
    for band in bands:
        if np.dtype(_numpy_type(source.dtypes[band - 1])).kind not in "uif":
            raise ImageError(f"{path}: band {band} holds values of type {source.dtypes[band - 1]}, which are no pixels")
    return tuple(bands)


def _numpy_type(name: str) -> str:
    return "complex64" if name == "complex_int16" else name


def _is_float(source: Any, bands: Sequence[int]) -> bool:
    return any(np.issubdtype(np.dtype(source.dtypes[band - 1]), np.floating) for band in bands)


def _palette(source: Any, bands: Sequence[int]) -> np.ndarray | None:
    """The colours (256,3) of a picture of one band with a colour table."""
    if len(bands) != 1 or source.colorinterp[bands[0] - 1].name != "palette" or source.dtypes[bands[0] - 1] != "uint8":
        return None
    colours = np.zeros((256, 3), np.uint8)
    for value, colour in source.colormap(bands[0]).items():
        colours[value] = colour[:3]
    return colours


def _ground(source: Any) -> Ground | None:
    """Where the picture lies, if the file says it by a transform; control points alone are not heeded."""
    if source.transform.is_identity:
        return None
    return Ground(tuple(source.transform)[:6], source.crs.to_wkt() if source.crs else None)


def _spans(span: tuple[int, int], step: int, side: int) -> list[tuple[slice, tuple[int, int]]]:
    """A span of reduced pixels as slices of the result and spans of the picture: whole reduced pixels, and the one at
    the far edge of which only a part exists."""
    whole = min(span[1], side // step)
    parts = []
    if whole > span[0]:
        parts.append((slice(0, whole - span[0]), (span[0] * step, whole * step)))
    if span[1] > whole:
        parts.append((slice(span[1] - span[0] - 1, span[1] - span[0]), (whole * step, side)))
    return parts
