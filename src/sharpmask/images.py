"""Any image to an 8-bit RGB array, and a list of inputs to a list of image files."""

import glob
import io
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from sharpmask.errors import ConfigError, ImageError

ImageSource = str | os.PathLike[str] | Image.Image | np.ndarray

MAX_PIXELS = 200_000_000
# What lies under transparent pixels: the networks' padding value, so that "nothing there" looks the same everywhere,
# and neither black nor white drawings on a transparent ground vanish.
BACKGROUND = (128, 128, 128)
SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

_open_lock = threading.Lock()


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a file, PIL image or array as 8-bit RGB.

    Files and PIL images: the EXIF orientation is applied; transparency is composited on mid grey; 16-bit grey is
    divided by 257; of several frames the first is taken; CMYK, palette, grey and 1-bit images are converted.
    Arrays: (H,W), (H,W,1), (H,W,3) or (H,W,4, the last one alpha), of bool, uint8, uint16 (divided by 257), other
    integers within 0…255, or floats within 0…1.

    Returns: uint8 array (H,W,3), contiguous and writable. It may share memory with `source` when that is such an array.
    Memory: about 12 bytes a pixel while a file is read, 3 afterwards.

    Raises:
        ImageError: missing, truncated or unknown file; more than `max_pixels` pixels; no pixels; an unusable array.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        try:
            return _from_pil(source, "the PIL image", max_pixels)
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageError(f"the PIL image cannot be decoded: {error}") from error
    if not isinstance(source, (str, os.PathLike)):
        kind = type(source).__name__
        raise ImageError(f"cannot read an image from a {kind}: give a path, a PIL image or a NumPy array (H,W,3)")
    path = Path(source)
    return _decode(path, str(path), max_pixels)


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read the content of an image file as `read_image` reads the file; `name` stands in the messages.

    Raises:
        ImageError: truncated or of an unknown format; more than `max_pixels` pixels; no pixels.
    """
    if not data:
        raise ImageError(f"{name}: empty, not an image")
    return _decode(io.BytesIO(data), name, max_pixels)


def _decode(file: Path | io.BytesIO, name: str, max_pixels: int) -> np.ndarray:
    try:
        with open_image(file) as image:
            return _from_pil(image, name, max_pixels)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name}: a folder, not an image") from error
    except PermissionError as error:
        raise ImageError(f"{name}: no permission to read it") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image of a known format") from error
    except Exception as error:  # decoders raise nearly anything on damaged data: struct.error, zlib.error, …
        raise ImageError(f"{name}: damaged or truncated image ({error})") from error


def find_images(inputs: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Files, folders and glob patterns to image files, in the given order and without repeats.

    A file is taken whatever its name. A folder gives its direct children (no sub-folders) with a known suffix, sorted
    by name; a pattern (`*`, `?`, `[…]`, `**` for any depth) gives the matching files with a known suffix, sorted.

    Raises:
        ConfigError: a path that does not exist, a pattern that matches no image, a folder without images, no input.
    """
    found: dict[Path, None] = {}
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            try:
                matches = sorted(child for child in path.iterdir() if _is_image_file(child))
            except OSError as error:
                raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from None
            complaint = f"{path}: the folder holds no images (known suffixes: {' '.join(sorted(SUFFIXES))})"
            if not matches and any(child.is_dir() for child in path.iterdir()):
                complaint += f"; for those of its sub-folders give '{path}/**/*.jpg'"
        elif path.exists():
            matches, complaint = [path], ""
        elif glob.has_magic(str(item)):
            matches = sorted(filter(_is_image_file, map(Path, glob.glob(str(item), recursive=True))))
            complaint = f"{item}: no image matches this pattern"
        else:
            raise ConfigError(f"{path}: no such file or folder")
        if not matches:
            raise ConfigError(complaint)
        found.update(dict.fromkeys(matches))
    if not found:
        raise ConfigError("no input: give image files, folders or patterns")
    unique = {os.path.realpath(path): path for path in reversed(found)}  # the first spelling of each file wins
    return [path for path in found if unique[os.path.realpath(path)] == path]


def assert_apart(inputs: Sequence[str | os.PathLike[str]], output: Path) -> None:
    """Refuse an output folder that is one of the folders of inputs: the next run would take its pictures for photos.

    Raises:
        ConfigError: it is.
    """
    for item in inputs:
        if Path(item).is_dir() and os.path.realpath(item) == os.path.realpath(output):
            raise ConfigError(
                f"the output folder {output} is a folder of inputs, too, where results would mix with photos; "
                "give another folder"
            )


def _is_image_file(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def open_image(source: Path | IO[bytes], formats: list[str] | None = None) -> Image.Image:
    """`Image.open`, which reads the header only, without Pillow's own size limit (a warning, then an error).

    Whoever decodes the image must check its size first, as `read_image` does. `formats`: Pillow's names of the formats
    to try; None: all. Raises whatever Pillow's decoders raise.
    """
    with _open_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(source, formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: has no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {width * height / 1e6:.0f} megapixels, more than the limit of "
            f"{max_pixels / 1e6:g}; make it smaller or cut it into parts"
        )


def _from_pil(image: Image.Image, name: str, max_pixels: int) -> np.ndarray:
    _check_size(*image.size, name, max_pixels)
    image.load()
    with suppress(Exception):  # a damaged EXIF block is no reason to refuse the pixels
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return _from_array(_deep_grey(image, name), max_pixels, name)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        try:
            layer = image.convert("RGBA")
        except ValueError:  # a transparency entry that Pillow cannot use with this mode
            return np.array(image.convert("RGB"))
        ground = Image.new("RGBA", image.size, (*BACKGROUND, 255))
        return np.array(Image.alpha_composite(ground, layer).convert("RGB"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _deep_grey(image: Image.Image, name: str) -> np.ndarray:
    """Pixels of the modes with more than 8 bits: 16-bit integers (also stored as 32-bit), or floats in 0…1."""
    values = np.asarray(image)
    if image.mode == "F":
        return values
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"{name}: 32-bit values outside 0…65535; convert it to 8 or 16 bits")
    return values.astype(np.uint16)


def _from_array(array: np.ndarray, max_pixels: int, name: str = "the array") -> np.ndarray:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise ImageError(f"{name}: shape {array.shape} is no image; it must be (H,W), (H,W,1), (H,W,3) or (H,W,4)")
    _check_size(array.shape[1], array.shape[0], name, max_pixels)
    pixels = _to_8_bit(array, name)
    if pixels.shape[2] == 4:
        ground = Image.new("RGBA", (pixels.shape[1], pixels.shape[0]), (*BACKGROUND, 255))
        layer = Image.fromarray(np.ascontiguousarray(pixels))
        return np.array(Image.alpha_composite(ground, layer).convert("RGB"))
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.require(pixels, requirements=["C", "W"])  # PyTorch warns about arrays that cannot be written to


def _to_8_bit(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if np.issubdtype(array.dtype, np.integer):
        if array.min() < 0 or array.max() > 255:
            raise ImageError(f"{name}: {array.dtype} values outside 0…255; convert it to uint8 or uint16")
        return array.astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ImageError(f"{name}: float values must be finite and within 0…1; scale it or convert it to uint8")
        return (array * 255 + 0.5).astype(np.uint8)
    raise ImageError(f"{name}: values of type {array.dtype} are no pixels; convert it to uint8")
