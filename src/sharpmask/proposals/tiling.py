"""Ranked masks of a picture of any size, with memory for one tile.

All scales of the pyramid are cut into tiles of one size, in pixels as the network sees them. Every window belongs to
one tile, that of its centre, and lies whole within what that tile is given to see, so that an object on a seam, or on
the corner of four tiles, is found as anywhere else, once for each of its windows: there is nothing to merge. What is
larger than a tile at a fine scale is small at a coarse one: the pyramid goes on downwards until a window holds the
whole picture. Windows of all tiles and scales are ranked together.

Masks are pasted at the picture's full resolution up to windows of `_FULL` times the network's; those of larger ones,
whose mask has far fewer pixels than they, at a resolution reduced by a power of two, and then enlarged
as run-length codes. No array grows with the picture. Shape letters: N windows, H W the picture.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from sharpmask.errors import ConfigError
from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.pyramid import SCALE_LIMITS, TILE_MARGIN, Tile, TilePlace, pad, tile_places
from sharpmask.proposals.rasters import Raster
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import EncodedMasks, Rle, column_runs, encode_runs, runs_of_ones
from sharpmask.proposals.windows import Grid, rescaled_grid

DEFAULT_TILE = 2048
# Windows to decode for a megapixel where nothing else is said.
TOP_PER_MEGAPIXEL = 500
_FULL = 8
_STRIP_PIXELS = 6_000_000  # of the picture that are read at a time to be rescaled
_WHOLE = 0.75  # of a window: the pyramid ends where the whole picture is no longer than this


@dataclass(frozen=True)
class Level:
    """One scale of a picture.

    Attributes:
        exponent: of two, of the scale.
        reduction: the power of two by which the picture is reduced before masks are pasted.
        step: the power of two by which it is reduced before it is rescaled for the network, a multiple of `reduction`.
        grid: the windows; its image is the picture reduced by `reduction`.
    """

    exponent: float
    reduction: int
    step: int
    grid: Grid


def propose_raster(
    proposer: Proposer,
    raster: Raster,
    *,
    tile: int = DEFAULT_TILE,
    overlap: int | None = None,
    top: int | None = None,
    coarser: bool = True,
    progress: bool = False,
) -> Proposals:
    """Rank the objects of a picture that is read part by part.

    Args:
        proposer: its scales, border, threshold, limits, ranking and NMS hold; `max_pixels`, `tile_pixels` do not.
        raster: see `raster_files.open_raster`.
        tile: largest side of what the network sees at a time, in rescaled pixels.
        overlap: rescaled pixels that neighbouring tiles have in common, at least; never less than lets every window
            lie whole in one tile. None: that and `TILE_MARGIN` pixels around it where the tile has room for them.
        top: windows to decode for the whole picture; None: `TOP_PER_MEGAPIXEL` for each megapixel, and no fewer than
            the proposer's `top`.
        coarser: go on to coarser scales than the proposer's where the picture is larger than the windows.
        progress: show the tiles that are done, on terminals.

    Raises:
        ConfigError: a tile that is too small for a window and the overlap.
        ImageError: a part of the picture cannot be read.
    """
    spec = proposer.network.spec
    scales = coarser_scales(proposer.scales, raster.size, spec.patch_size) if coarser else proposer.scales
    levels = [_level(raster, exponent, spec.patch_size, spec.stride) for exponent in scales]
    most, extra = tile_cells(tile, overlap, patch_size=spec.patch_size, stride=spec.stride)
    places = [
        (scale, place)
        for scale, level in enumerate(levels)
        for place in tile_places(level.grid, most, extra, proposer.border)
    ]
    if top is None:
        top = max(proposer.top, round(TOP_PER_MEGAPIXEL * raster.size[0] * raster.size[1] / 1e6))
    # Shown on terminals only.
    shown = tqdm(places, unit="tile", leave=False, disable=None if progress else True)
    pool, masks = proposer.search(
        _tiles(raster, levels, shown, proposer.device),
        top=top,
        threshold=proposer.threshold,
        min_score=proposer.min_score,
    )
    found = _result(pool, masks, levels, raster.size, stability=proposer.stability_offset is not None)
    found = found.filter(min_area=max(1, proposer.min_area), max_area=proposer.max_area)
    found = found.ranked(proposer.ranking)
    return found if proposer.nms is None else found.nms(proposer.nms)


def coarser_scales(scales: Sequence[float], size: tuple[int, int], patch_size: int) -> tuple[float, ...]:
    """The scales and before them coarser ones in half octaves, until the whole picture (H,W) is no longer than three
    quarters of a window; ascending."""
    added: list[float] = []
    exponent = scales[0]
    while max(size) * 2.0**exponent > _WHOLE * patch_size and exponent - 0.5 >= SCALE_LIMITS[0]:
        exponent -= 0.5
        added.append(exponent)
    return (*reversed(added), *scales)


def tile_cells(tile: int, overlap: int | None, *, patch_size: int, stride: int) -> tuple[int, int]:
    """How many windows along a side a tile owns, and how many more it sees before and after them.

    Raises:
        ConfigError: `tile` leaves no window of its own, or `overlap` is negative.
    """
    cells = (tile - patch_size) // stride + 1
    if overlap is None:
        extra = min(TILE_MARGIN // stride, (cells - 1) // 4)
    else:
        # Neighbours that own windows up to each other's have these in common, and the patch less one stride.
        extra = -(-max(0, overlap - patch_size + stride) // (2 * stride))
    if overlap is not None and overlap < 0:
        raise ConfigError(f"overlap {overlap}: must be a number of pixels, 0 or more")
    if cells < 1 or cells - 2 * extra < 1:
        least = patch_size + (0 if overlap is None else 2 * extra * stride)
        about = "" if overlap is None else f" and an overlap of {overlap}"
        raise ConfigError(f"tile {tile}: must be at least {least} pixels, to hold a window of {patch_size}{about}")
    return cells - 2 * extra, extra


def _level(raster: Raster, exponent: float, patch_size: int, stride: int) -> Level:
    reduction = 2 ** max(0, math.ceil(-exponent - math.log2(_FULL)))
    # At least twice the pixels that are wanted: what remains to be done has the filter of photos that are read whole.
    step = 2 ** max(0, math.floor(-exponent) - 1) if raster.reduces else reduction
    reduced = (-(-raster.size[0] // reduction), -(-raster.size[1] // reduction))
    scaled = exponent + math.log2(reduction)
    return Level(exponent, reduction, step, rescaled_grid(reduced, scaled, patch_size=patch_size, stride=stride))


def _tiles(
    raster: Raster, levels: Sequence[Level], places: Iterable[tuple[int, TilePlace]], device: torch.device
) -> Iterator[Tile]:
    """The tiles that hold data, one in memory at a time."""
    for scale, place in places:
        pixels, valid = rescaled_part(raster, levels[scale], place.start, place.end)
        if valid is not None and not valid.any():
            continue
        parts = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(device)
        images = pad(parts, place.grid, place.first_cell, place.sides)
        seen = None if valid is None else _pad_valid(valid, place, device)
        yield Tile(images, scale, place.grid, place.first_cell, place.rows, place.cols, seen)


def _pad_valid(valid: np.ndarray, place: TilePlace, device: torch.device) -> torch.Tensor:
    """(1,1,Hp,Wp): where the picture has data; its surroundings are taken to be as its edge is."""
    top, left = place.grid.padding_before(place.first_cell)
    bottom, right = (
        side - before - seen for side, before, seen in zip(place.sides, (top, left), valid.shape, strict=True)
    )
    return torch.from_numpy(np.pad(valid, ((top, bottom), (left, right)), mode="edge"))[None, None].to(device)


def rescaled_part(
    raster: Raster, level: Level, start: tuple[int, int], end: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The part [start, end) of the rescaled picture, (h,w,3) uint8, and where it has data, (h,w) bool or None; read in
    strips, so that it takes little more memory than the result."""
    size, step = level.grid.rescaled_size, level.step
    # Sides of what is rescaled, in pixels reduced by `step`: those that the grid's image has, not quite whole numbers.
    extents = [side * level.reduction / step for side in level.grid.image_size]
    limits = [-(-side // step) for side in raster.size]
    cols, across = _source_span((start[1], end[1]), size[1] / extents[1], extents[1], limits[1])
    height = max(1, int(_STRIP_PIXELS / (cols[1] - cols[0]) * size[0] / extents[0]))
    pixels = np.empty((end[0] - start[0], end[1] - start[1], 3), np.uint8)
    valid = np.ones(pixels.shape[:2], bool)
    for top in range(start[0], end[0], height):
        bottom = min(end[0], top + height)
        rows, down = _source_span((top, bottom), size[0] / extents[0], extents[0], limits[0])
        part = raster.read(rows, cols, step)
        box = (across[0], down[0], across[1], down[1])
        to = (end[1] - start[1], bottom - top)
        here = slice(top - start[0], bottom - start[0])
        picture = Image.fromarray(np.ascontiguousarray(part.pixels))
        pixels[here] = np.asarray(picture.resize(to, Image.Resampling.BILINEAR, box=box))
        if part.valid is not None:
            mask = Image.fromarray(part.valid.astype(np.uint8) * 255)
            valid[here] = np.asarray(mask.resize(to, Image.Resampling.BILINEAR, box=box)) >= 128
    return pixels, None if valid.all() else valid


def _source_span(
    span: tuple[int, int], factor: float, extent: float, limit: int
) -> tuple[tuple[int, int], tuple[float, float]]:
    """The pixels [first, last) that a span of rescaled pixels needs, and the span's own place counted from the first.

    `factor` rescaled pixels for one of the source; `extent` and `limit` are the source's side, exact and in pixels.
    """
    begin, stop = span[0] / factor, min(span[1] / factor, extent)
    reach = max(1.0, 1 / factor) + 1
    first = max(0, math.floor(begin - reach))
    return (first, min(limit, math.ceil(stop + reach))), (begin - first, stop - first)


def _result(
    pool: np.ndarray, masks: EncodedMasks, levels: Sequence[Level], size: tuple[int, int], *, stability: bool
) -> Proposals:
    """The decoded windows of `pool`, in its order, as proposals of the whole picture."""
    windows = np.zeros((len(pool), 4), np.float32)
    boxes, areas = masks.boxes[pool["mask"]], masks.areas[pool["mask"]]
    rles = [masks.rles[i] for i in pool["mask"]]
    for scale, level in enumerate(levels):
        places = np.flatnonzero(pool["scale"] == scale)
        windows[places] = level.grid.windows(pool["row"][places], pool["col"][places]) * level.reduction
        if level.reduction > 1:
            for begin in range(0, places.size, 64):
                batch = places[begin : begin + 64]
                larger = enlarge([rles[i] for i in batch], level.reduction, size)
                boxes[batch], areas[batch] = larger.boxes, larger.areas
                for i, rle in zip(batch, larger.rles, strict=True):
                    rles[i] = rle
    return Proposals(
        scores=torch.from_numpy(pool["logit"].copy()).double().sigmoid().float().numpy(),
        boxes=boxes,
        rles=rles,
        windows=windows,
        scales=np.array([level.exponent for level in levels], np.float32)[pool["scale"]],
        image_size=size,
        areas=areas,
        stability=masks.stability[pool["mask"]] if stability and masks.stability is not None else None,
    )


def enlarge(rles: Sequence[Rle], factor: int, size: tuple[int, int]) -> EncodedMasks:
    """Masks of a picture that was reduced by a whole factor as masks of the picture itself, (H, W) = `size`: each
    pixel becomes factor x factor pixels, fewer at the far edges."""
    height, width = size
    owners, starts, ends = [], [], []
    for owner, rle in enumerate(rles):
        column, begin, end = column_runs(*runs_of_ones(rle), rle["size"][0])
        first = np.flatnonzero(np.diff(column, prepend=-1))  # run of each column that has one
        length = np.diff(np.append(first, column.size))
        copies = np.minimum(factor, width - column[first] * factor)
        # The runs of each column, as often as there are columns in its place.
        lengths = np.repeat(length, copies)
        run = np.arange(lengths.sum()) - np.repeat(lengths.cumsum() - lengths, lengths)
        run += np.repeat(np.repeat(first, copies), lengths)
        within = np.arange(copies.sum()) - np.repeat(copies.cumsum() - copies, copies)
        target = np.repeat(np.repeat(column[first] * factor, copies) + within, lengths)
        owners.append(np.full(run.size, owner))
        starts.append(target * height + begin[run] * factor)
        ends.append(target * height + np.minimum(end[run] * factor, height))
    return encode_runs(np.concatenate(owners), np.concatenate(starts), np.concatenate(ends), len(rles), size)
