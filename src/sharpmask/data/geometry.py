"""The canonical patch: where a window lies in its image, and the exact crop of that window.

A window is a centre in image pixels and a scale (patch pixels per image pixel). Patch and mask of an example are cut
with the same floating-point box by the same resampling, so that they agree to a fraction of a pixel at every scale.

Coordinates are continuous: pixel c covers [c, c+1), so an image of width W spans [0, W] and the
patch of 192 spans [0, 192].
"""

import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

# 0.5 of [0, 1] is 127.5 in uint8; rounded up, 0.002 off the 0.5 that the dense mode pads with
GREY = 128
# A shrinking resampling starts from at least this many image pixels a patch pixel; see `crop`.
FINEST_REDUCED = 8


@dataclass(frozen=True)
class CanonicalGeometry:
    """The sizes, jitters and limits of canonical examples; the defaults are those of the authors' release.

    The DeepMask paper's own rule for negatives (32 px or one octave away) is `negative_shift=32, negative_octaves=1`.
    """

    patch_size: int = 160
    """side of the window whose object is asked for, in patch pixels"""
    context: int = 16
    """real image added on each side, in patch pixels, so that convolutions do not see the border of the window"""
    shift: float = 16.0
    """a positive's centre is moved by up to this, in x and in y, in patch pixels"""
    scale_jitter: float = 0.25
    """a positive's scale is changed by up to this, in octaves"""
    flip: float = 0.5
    """probability of mirroring an example left to right"""
    negative_shift: float = 48.0
    """a negative's centre is at least this far, in x or in y, from every object of near scale, in patch pixels"""
    negative_octaves: float = 2.5
    """which scales are near: objects whose canonical scale differs by at most this, in octaves"""
    negative_exponents: tuple[float, ...] = field(default_factory=lambda: tuple(np.arange(-3.0, 2.01, 0.25).tolist()))
    """the scales of negatives, patch pixels per image pixel, as exponents of two"""
    min_area: float = 100.0
    """smallest area of a positive, in square image pixels"""
    min_side: float = 5.0
    """smallest box side of a positive, in image pixels"""

    @property
    def object_side(self) -> int:
        """Patch pixels of the longer side of a centred object: 92 for a patch of 160."""
        return math.ceil(self.patch_size * 128 / 224)

    @property
    def input_size(self) -> int:
        """Side of the patch with its context: 192."""
        return self.patch_size + 2 * self.context


@dataclass(frozen=True)
class Window:
    """A square of the image: centre (x, y) in image pixels, `scale` in patch pixels per image pixel."""

    x: float
    y: float
    scale: float

    def box(self, side: float) -> tuple[float, float, float, float]:
        """The xyxy box in image pixels that becomes `side` x `side` patch pixels around the window's centre."""
        half = side / 2 / self.scale
        return self.x - half, self.y - half, self.x + half, self.y + half


def centred_window(bbox: tuple[float, float, float, float], geometry: CanonicalGeometry) -> Window:
    """The window that shows the box `bbox` (xywh) centred, its longer side `geometry.object_side` patch pixels long."""
    x, y, width, height = bbox
    return Window(x + width / 2, y + height / 2, geometry.object_side / max(width, height))


def jittered_window(
    window: Window, rng: np.random.Generator, geometry: CanonicalGeometry, extra_scale: float = 0.0
) -> Window:
    """`window` moved by up to `shift` patch pixels and rescaled by up to `scale_jitter + extra_scale` octaves."""
    octaves = geometry.scale_jitter + extra_scale
    scale = window.scale * 2.0 ** rng.uniform(-octaves, octaves)
    # the shift is in pixels of the patch that results, hence the new scale
    dx, dy = rng.uniform(-geometry.shift, geometry.shift, size=2) / scale
    return Window(window.x + dx, window.y + dy, scale)


def crop(image: np.ndarray, box: tuple[float, float, float, float], size: int, fill: int) -> np.ndarray:
    """Resize the part of `image` inside `box` to `size` x `size`, antialiased, `fill` where the box leaves the image.

    `image` is uint8 (H, W) or (H, W, 3), `box` xyxy in image pixels with fractions. The image counts as surrounded by
    `fill` before the resampling (bilinear, widened when shrinking: Pillow's BILINEAR), so the border blends as any
    other edge does.
    """
    factor = int((box[2] - box[0]) / size / FINEST_REDUCED)
    if factor > 1:
        # an object of thousands of pixels: averaging whole blocks first bounds time and memory (the padded window alone
        # could take gigabytes) and changes nothing that is visible in the patch
        image = np.asarray(Image.fromarray(image).reduce(factor))
        x0, y0, x1, y1 = (value / factor for value in box)
    else:
        x0, y0, x1, y1 = box
    height, width = image.shape[:2]
    # pixels beside the box that the filter reaches
    margin = math.ceil(max(1.0, (x1 - x0) / size)) + 1
    left, top = math.floor(x0) - margin, math.floor(y0) - margin
    right, bottom = math.ceil(x1) + margin, math.ceil(y1) + margin
    inner_left, inner_top = min(max(left, 0), width), min(max(top, 0), height)
    inner_right, inner_bottom = min(max(right, inner_left), width), min(max(bottom, inner_top), height)
    region = image[inner_top:inner_bottom, inner_left:inner_right]
    if (inner_left, inner_top, inner_right, inner_bottom) != (left, top, right, bottom):
        padded = np.full((bottom - top, right - left, *image.shape[2:]), fill, dtype=np.uint8)
        padded[inner_top - top : inner_bottom - top, inner_left - left : inner_right - left] = region
        region = padded
    resized = Image.fromarray(np.ascontiguousarray(region)).resize(
        (size, size), Image.Resampling.BILINEAR, box=(x0 - left, y0 - top, x1 - left, y1 - top)
    )
    return np.asarray(resized)


def crop_patch(image: np.ndarray, window: Window, geometry: CanonicalGeometry) -> np.ndarray:
    """The patch of a window with its context: uint8 (input_size, input_size, 3), grey outside the image."""
    return crop(image, window.box(geometry.input_size), geometry.input_size, GREY)


def crop_alpha(mask: np.ndarray, window: Window, side: float, size: int) -> np.ndarray:
    """The share of each of `size` x `size` pixels that the uint8 {0, 1} `mask` covers, 0..255, in the window's inner
    `side` patch pixels.
    """
    return crop(mask * np.uint8(255), window.box(side), size, 0)


def crop_mask(mask: np.ndarray, window: Window, geometry: CanonicalGeometry, mask_side: int) -> np.ndarray:
    """The target of a window: uint8 {0, 1} (mask_side, mask_side) over its inner `patch_size`, 0 outside the image."""
    return (crop_alpha(mask, window, geometry.patch_size, mask_side) >= 128).astype(np.uint8)


def restore_padding(
    patch: np.ndarray, window: Window, geometry: CanonicalGeometry, image_size: tuple[int, int]
) -> np.ndarray:
    """`patch` with all pixels that lie wholly outside an image of (H, W) grey again, after a change of its content."""
    x0, y0, x1, y1 = window.box(geometry.input_size)
    height, width = image_size
    if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height:
        return patch
    side = geometry.input_size
    left, top = (min(max(math.floor(-start * window.scale), 0), side) for start in (x0, y0))
    right = min(max(math.ceil((width - x0) * window.scale), 0), side)
    bottom = min(max(math.ceil((height - y0) * window.scale), 0), side)
    restored = np.full_like(patch, GREY)
    restored[top:bottom, left:right] = patch[top:bottom, left:right]
    return restored
