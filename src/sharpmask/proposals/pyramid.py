"""The image pyramid: an image rescaled to several sizes, padded with grey and, where it is large, cut into tiles.

A rescaled image that is small enough is one tile. A larger one is cut into overlapping tiles so that memory does not
grow with the image. Every grid cell belongs to exactly one tile, which holds at least `TILE_MARGIN` rescaled pixels
more on each side than the windows of its own cells, so that convolutions seldom notice the cut.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from sharpmask.errors import ConfigError
from sharpmask.proposals.windows import Grid, rescaled_grid

DEFAULT_SCALES = (-2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5)  # octaves
SCALE_LIMITS = (-8.0, 4.0)
GREY = 0.5
TILE_MARGIN = 96
# About 1 GB of activations in the ResNet-50 trunk, and no tiles before 2 megapixels at the default scales.
TILE_PIXELS = 4_194_304


@dataclass(frozen=True)
class Tile:
    """A padded part of one rescaled image.

    Attributes:
        images: (1,3,Hp,Wp) float32 in [0,1], the sides multiples of the stride.
        scale: index into the exponents of the pyramid.
        grid: the grid of the whole rescaled image.
        first_cell: (row, col) in that grid of the tile's own cell (0, 0).
        rows, cols: the tile's cells, counted in the tile, that belong to it; others belong to neighbours or to no one.
        valid: (1,1,Hp,Wp) bool, where the picture has data (its surroundings as its edge); None: everywhere.
    """

    images: torch.Tensor
    scale: int
    grid: Grid
    first_cell: tuple[int, int]
    rows: slice
    cols: slice
    valid: torch.Tensor | None = None


@dataclass(frozen=True)
class TilePlace:
    """Where a tile lies: as in `Tile`, and the padded `sides` and the part [start, end) of the rescaled image in it."""

    grid: Grid
    first_cell: tuple[int, int]
    rows: slice
    cols: slice
    sides: tuple[int, int]
    start: tuple[int, int]
    end: tuple[int, int]


def scale_exponents(
    zoom: int = 0, scales: Sequence[float] | None = None, zoom2_exponent: float = 1.5, *, patch_size: int = 160
) -> tuple[float, ...]:
    """The pyramid's scales as exponents of two, ascending and without repeats.

    Args:
        zoom: 0 the scales as they are, 1 adds 2^1 ("Zoom" in the paper), 2 adds 2^`zoom2_exponent` as well ("Zoom²").
        scales: in place of 2^-2.5 … 2^0.5 in half octaves.
        zoom2_exponent: the paper leaves it open whether it is 1.5 or 2.
        patch_size: of the network. Objects fill the same share of windows of any size, so that all scales that are not
            given move by as much as the window differs from 160 pixels, in whole half octaves: 2^-2 … 2^1 for 224, as
            the DeepMask paper has them, and 2^-3 … 2^0 for 112.

    Raises:
        ConfigError: another zoom, no scales, or an exponent outside -8 … 4.
    """
    if zoom not in (0, 1, 2):
        raise ConfigError(f"zoom {zoom}: must be 0, 1 or 2")
    shift = round(2 * math.log2(patch_size / 160)) / 2
    own = (1.0, zoom2_exponent)[:zoom] if scales is not None else (*DEFAULT_SCALES, *(1.0, zoom2_exponent)[:zoom])
    exponents = sorted({*(float(s) for s in scales or ()), *(s + shift for s in own)})
    if not exponents:
        raise ConfigError("no scales: give at least one exponent of two, for example 0")
    for exponent in exponents:
        if not SCALE_LIMITS[0] <= exponent <= SCALE_LIMITS[1]:
            low, high = SCALE_LIMITS
            raise ConfigError(f"scale exponent {exponent:g}: must lie between {low:g} and {high:g}")
    return tuple(exponents)


def level_offsets(exponents: Sequence[float], stride: int, half_steps: bool) -> list[tuple[float, int]]:
    """The scales as (exponent, offset of the first window, see `Grid`): each once, or with `half_steps` a second time
    with the windows moved by half the stride down and to the right, into the middle of each four windows."""
    return [(exponent, offset) for exponent in exponents for offset in ((0, stride // 2) if half_steps else (0,))]


def iterate_tiles(
    image: np.ndarray,
    exponents: Sequence[float],
    *,
    patch_size: int,
    stride: int,
    device: torch.device,
    tile_pixels: int = TILE_PIXELS,
    margin: int = TILE_MARGIN,
    border: int = 0,
    half_steps: bool = False,
) -> Iterator[Tile]:
    """All tiles of all scales of an image (H,W,3) uint8, one in memory at a time, scale by scale, rows first.

    Args:
        tile_pixels: largest number of pixels of a tile, padding and margin included.
        margin: rescaled pixels of real image around the windows of a tile's own cells.
        border: leave out windows whose centre is nearer than this to the edge of the rescaled image (rescaled pixels,
            see `Grid.inner_cells`), and the padding that only they need.
        half_steps: see `level_offsets`; each scale then comes twice, and `Tile.scale` numbers all of these.
    """
    for scale, (exponent, offset) in enumerate(level_offsets(exponents, stride, half_steps)):
        size = (image.shape[0], image.shape[1])
        grid = rescaled_grid(size, exponent, patch_size=patch_size, stride=stride, offset=offset)
        limits = grid.padded_inner_cells(border)
        sides = [stride * (end - begin - 1) + patch_size for begin, end in limits]
        if sides[0] * sides[1] <= tile_pixels:
            place = _tile_place(grid, *grid.inner_cells(border), 1, limits)  # all cells, and the padded ones
            (top, left), (bottom, right) = place.start, place.end
            part = rescale(image, grid.rescaled_size, device)[:, :, top:bottom, left:right]
            yield _tile(part, scale, place)
            continue
        extra = -(-margin // stride)
        most = max(1, (math.isqrt(tile_pixels) - patch_size) // stride + 1 - 2 * extra)
        for place in tile_places(grid, most, extra, border):
            yield _tile(rescale_part(image, grid.rescaled_size, place.start, place.end).to(device), scale, place)


def _tile(part: torch.Tensor, scale: int, place: TilePlace) -> Tile:
    images = pad(part, place.grid, place.first_cell, place.sides)
    return Tile(images, scale, place.grid, place.first_cell, place.rows, place.cols)


def tile_places(grid: Grid, most: int, extra: int, border: int = 0) -> Iterator[TilePlace]:
    """Cut a grid into tiles that own at most `most` x `most` cells each, every cell in one, rows first; a tile has
    `extra` cells around its own where the grid has them. Of a border see `iterate_tiles`."""
    rows, cols = grid.inner_cells(border)
    limits = grid.padded_inner_cells(border)
    for row_span in _split(rows, most):
        for col_span in _split(cols, most):
            yield _tile_place(grid, row_span, col_span, extra, limits)


def _split(span: tuple[int, int], most: int) -> list[tuple[int, int]]:
    """Spans (begin, end) of nearly equal length, at most `most`, that cover one."""
    begin, count = span[0], span[1] - span[0]
    parts = -(-count // most)
    ends = [begin + count * part // parts for part in range(parts + 1)]
    return list(itertools.pairwise(ends))


def _tile_place(
    grid: Grid,
    row_span: tuple[int, int],
    col_span: tuple[int, int],
    extra: int,
    limits: Sequence[tuple[int, int]],
) -> TilePlace:
    """The tile that owns the cells of two spans, with `extra` cells around them as far as `limits` go."""
    first, sides, starts, ends = [], [], [], []
    for axis, (begin, end) in enumerate((row_span, col_span)):
        low, high = max(limits[axis][0], begin - extra), min(limits[axis][1], end + extra)
        first.append(low)
        sides.append(grid.stride * (high - low - 1) + grid.patch_size)
        # Of the tile's first padded pixel in the rescaled image.
        offset = grid.stride * low + grid.offset - grid.patch_size // 2
        starts.append(max(0, offset))
        ends.append(min(grid.rescaled_size[axis], offset + sides[-1]))
    return TilePlace(
        grid,
        (first[0], first[1]),
        slice(row_span[0] - first[0], row_span[1] - first[0]),
        slice(col_span[0] - first[1], col_span[1] - first[1]),
        (sides[0], sides[1]),
        (starts[0], starts[1]),
        (ends[0], ends[1]),
    )


def pad(rescaled: torch.Tensor, grid: Grid, first_cell: tuple[int, int], sides: tuple[int, int]) -> torch.Tensor:
    """Put 8-bit pixels (1,3,H,W) on a grey canvas (1,3,*sides) float32 in [0,1] whose cell (0, 0) is `first_cell`.

    A tile that begins at the image's edge has grey pixels before it (P/2 without an offset); one that begins inside has
    none.
    """
    canvas = torch.full((1, 3, *sides), GREY, device=rescaled.device).to(memory_format=torch.channels_last)
    top, left = grid.padding_before(first_cell)
    height, width = rescaled.shape[2:]
    canvas[:, :, top : top + height, left : left + width] = rescaled.float().div_(255)
    return canvas


def rescale(image: np.ndarray, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Antialiased bilinear resize of (H,W,3) uint8 to (1,3,*size) uint8 on `device`."""
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
    if pixels.shape[2:] == torch.Size(size):
        return pixels
    if device.type == "cpu":
        return functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return functional.interpolate(pixels.float(), size=size, mode="bilinear", antialias=True).round_().byte()


def rescale_part(
    image: np.ndarray, size: tuple[int, int], start: tuple[int, int], end: tuple[int, int]
) -> torch.Tensor:
    """The part [start, end) of what `rescale` gives, (1,3,h,w) uint8, computed from the pixels it needs only."""
    crops, boxes = [], []
    for axis in (0, 1):
        factor = size[axis] / image.shape[axis]
        begin, stop = start[axis] / factor, end[axis] / factor
        reach = max(1.0, 1 / factor) + 1
        low = max(0, math.floor(begin - reach))
        crops.append(slice(low, min(image.shape[axis], math.ceil(stop + reach))))
        boxes.append((begin - low, min(stop, image.shape[axis]) - low))
    source = Image.fromarray(np.ascontiguousarray(image[crops[0], crops[1]]))
    box = (boxes[1][0], boxes[0][0], boxes[1][1], boxes[0][1])
    part = source.resize((end[1] - start[1], end[0] - start[0]), Image.Resampling.BILINEAR, box=box)
    return torch.from_numpy(np.array(part)).permute(2, 0, 1)[None]
