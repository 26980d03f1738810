"""Files as rasters: what rasterio reads in windows, and what is decoded whole."""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sharpmask.errors import ConfigError, ImageError, MissingExtraError
from sharpmask.images import MAX_PIXELS, open_image, read_image
from sharpmask.proposals.geotiff import Stretch, WindowedRaster, open_source
from sharpmask.proposals.rasters import ArrayRaster, Raster

TIFF_SUFFIXES = {".tif", ".tiff"}
# What rasterio is asked to read; of everything else Pillow knows more, such as the orientation of photos.
RASTER_SUFFIXES = {".jp2", ".vrt", *TIFF_SUFFIXES}
_GEO_TAGS = {33550, 33922, 34264, 34735}  # pixel scale, tie points, transformation, keys
_ORIENTATION = 274


@contextmanager
def open_raster(
    path: Path,
    *,
    bands: Sequence[int] | None = None,
    stretch: Stretch = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Raster]:
    """A picture for reading in parts; the file is open within the block.

    Args:
        path: a TIFF, JPEG 2000 or VRT is read by rasterio where it is installed; another file, or a TIFF that says it
            is to be turned, is decoded whole.
        bands: one band, counted from 1, or three for red, green and blue; None: those the file calls so, else the
            first three, else the first. For rasterio's files only.
        stretch: two percentiles of each band, taken from a reduced picture, that become black and white; "none" takes
            the values as they are (16 bits: divided by 257, floats: 0…1); None: 2 and 98 unless the bands have 8 bits.
        max_pixels: of what must be decoded at once: the whole of a file that is decoded whole, else one of its blocks.

    Raises:
        ImageError: the file cannot be read, is too large, or has not the bands asked for.
        MissingExtraError: bands or stretch are given, or the format needs it, and rasterio is not installed.
    """
    suffix = path.suffix.lower()
    if not path.exists():
        raise ImageError(f"{path}: no such file")
    if suffix in RASTER_SUFFIXES and not has_rasterio() and (suffix not in TIFF_SUFFIXES or bands or stretch):
        what = f"{path}: bands and stretch" if suffix in TIFF_SUFFIXES else f"{path}: a {suffix} file"
        raise MissingExtraError("rasterio", "geo", what)
    if suffix in RASTER_SUFFIXES and has_rasterio() and not _turned(path):
        with open_source(path) as source:
            yield WindowedRaster(source, path, bands=bands, stretch=stretch, max_pixels=max_pixels)
        return
    if bands or stretch:
        raise ImageError(
            f"{path}: bands and stretch are for files that rasterio reads ({' '.join(sorted(RASTER_SUFFIXES))})"
        )
    yield ArrayRaster(read_image(path, max_pixels=max_pixels))


def is_raster(path: Path) -> bool:
    """Whether a file is one that lies on the ground or that only rasterio reads; from its name and header alone."""
    suffix = path.suffix.lower()
    if suffix not in (".tif", ".tiff"):
        return suffix in RASTER_SUFFIXES
    tags = _tags(path)
    if not has_rasterio():
        return bool(_GEO_TAGS & set(tags or ()))
    try:
        with open_source(path) as source:
            return tags is None or source.crs is not None or not source.transform.is_identity
    except ImageError:
        return False


def has_rasterio() -> bool:
    return importlib.util.find_spec("rasterio") is not None


def parse_bands(text: str | None) -> tuple[int, ...] | None:
    """Band numbers between commas: one or three, counted from 1; ConfigError otherwise."""
    if text is None:
        return None
    with suppress(ValueError):
        bands = tuple(int(part) for part in text.split(","))
        if len(bands) in (1, 3) and min(bands) >= 1:
            return bands
    raise ConfigError(f"--bands {text}: give one band or three for red, green and blue, counted from 1, such as 4,3,2")


def parse_stretch(text: str | None) -> Stretch:
    """Two percentiles between a comma, the smaller first, or the word none; ConfigError otherwise."""
    if text is None or text == "none":
        return text
    with suppress(ValueError):
        low, high = (float(part) for part in text.split(","))
        if 0 <= low < high <= 100:
            return low, high
    raise ConfigError(f"--stretch {text}: give two percentiles, such as 2,98, or none")


def _tags(path: Path) -> dict[int, Any] | None:
    """A TIFF's tags, without a look at its pixels; None where Pillow cannot read the file."""
    try:
        with open_image(path) as image:
            return dict(getattr(image, "tag_v2", {}))
    except Exception:  # whatever is wrong with the file is said when it is read
        return None


def _turned(path: Path) -> bool:
    """Whether a TIFF says that it is stored turned or mirrored, which GDAL does not heed."""
    return path.suffix.lower() in (".tif", ".tiff") and (_tags(path) or {}).get(_ORIENTATION, 1) in range(2, 9)
