"""Files of large pictures to masks: what `folder.propose_files` does, with every picture read and searched in tiles."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from tqdm import tqdm

from sharpmask.errors import ConfigError, ImageError
from sharpmask.files import atomic_write, make_folder
from sharpmask.images import MAX_PIXELS
from sharpmask.proposals.cleaning import Cleaning
from sharpmask.proposals.folder import FolderReport, OpenWriter, Photo, open_coco, overlay_paths, photo_names
from sharpmask.proposals.geotiff import Stretch
from sharpmask.proposals.overlay import LONGEST_SIDE, draw_on, shrunk
from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.raster_files import TIFF_SUFFIXES, has_rasterio, is_raster, open_raster
from sharpmask.proposals.rasters import Raster
from sharpmask.proposals.records import Records
from sharpmask.proposals.tiling import DEFAULT_TILE, propose_raster, tile_cells


@dataclass(frozen=True)
class Tiling:
    """How pictures are read and cut.

    Attributes:
        tile: see `tiling.propose_raster`; None: `DEFAULT_TILE`, for the pictures that need tiles only.
        overlap, top, coarser: see `tiling.propose_raster`.
        bands, stretch: see `raster_files.open_raster`.
        needs_crs: refuse pictures that have no coordinate system.
        whole_maps: something is made of the results that holds a number for every pixel: refuse pictures of more than
            `MAX_PIXELS`.
    """

    tile: int | None = None
    overlap: int | None = None
    top: int | None = None
    coarser: bool = True
    bands: tuple[int, ...] | None = None
    stretch: Stretch = None
    needs_crs: bool = False
    whole_maps: bool = False


def needs_tiles(paths: Sequence[Path], tiling: Tiling, errors: TextIO | None = None) -> bool:
    """Whether pictures are to go through `propose_rasters`: when anything is asked for that only it does, or when one
    they lie on the ground. Without rasterio the latter is said on `errors` (default: standard error), and ignored.

    Raises:
        ConfigError: some lie on the ground and others do not: what is found in one must not depend on the others.
    """
    if tiling != Tiling(top=tiling.top, coarser=tiling.coarser, whole_maps=tiling.whole_maps):
        return True
    placed = [path for path in paths if is_raster(path)]
    if not has_rasterio() and placed and all(path.suffix.lower() in TIFF_SUFFIXES for path in placed):
        tqdm.write(
            f"sharpmask propose: {placed[0]} lies on the ground, which is ignored: for coordinates, windows and bands "
            "run  pip install 'sharpmask[geo]'",
            file=errors or sys.stderr,
        )
        return False
    if placed and len(placed) < len(paths):
        other = next(path for path in paths if path not in placed)
        raise ConfigError(
            f"{placed[0]} lies on the ground and is searched in tiles, {other} does not and is not: give them to "
            "separate commands, or say with --tile that all are to be"
        )
    return bool(placed)


def propose_rasters(
    proposer: Proposer,
    paths: Sequence[Path],
    output: Path,
    tiling: Tiling,
    *,
    overlay: bool = True,
    annotations: Path | None = None,
    errors: TextIO | None = None,
    progress: bool = True,
    cleaning: Cleaning | None = None,
    writer: OpenWriter | None = None,
) -> FolderReport:
    """Propose for each file and write the results; all arguments, errors and files as for `folder.propose_files`.

    Raises:
        ConfigError: also when a tile cannot hold a window.
        MissingExtraError: a file, or an option, needs rasterio, and it is not installed.
    """
    spec, tile = proposer.network.spec, DEFAULT_TILE if tiling.tile is None else tiling.tile
    tile_cells(tile, tiling.overlap, patch_size=spec.patch_size, stride=spec.stride)
    records = Records(annotations, paths)
    make_folder(output)
    overlays, names = overlay_paths(paths, output), photo_names(paths)
    report = FolderReport()
    with (writer or open_coco)(output) as write:
        for number, path in enumerate(paths, start=1):
            try:
                record = records.find(number, path)
                with open_raster(
                    path, bands=tiling.bands, stretch=tiling.stretch, max_pixels=proposer.max_pixels
                ) as raster:
                    height, width = raster.size
                    _check(path, raster, tiling)
                    record = records.sized(record, path, width, height)
                    proposals = propose_raster(
                        proposer,
                        raster,
                        tile=tile,
                        overlap=tiling.overlap,
                        top=tiling.top,
                        coarser=tiling.coarser,
                        progress=progress,
                    )
                    picture = _reduced(raster) if overlay else None
            except ImageError as error:
                report.failures.append(str(error))
                tqdm.write(f"sharpmask propose: {error}", file=errors or sys.stderr)
                continue
            if cleaning is not None:
                proposals = cleaning.apply(proposals)
            write(Photo(path, names[path], record, records.known, raster.ground), proposals)
            report.images += 1
            report.proposals += len(proposals)
            if picture is not None:
                with atomic_write(overlays[path]) as target:
                    draw_on(picture, proposals, _drawn(raster)).save(target)
    return report


def _check(path: Path, raster: Raster, tiling: Tiling) -> None:
    """Refuse what the results cannot be made for, before the work is done."""
    if tiling.needs_crs and (raster.ground is None or raster.ground.crs is None):
        raise ImageError(
            f"{path}: names no coordinate system, so nothing can be placed on the ground: give it one (for "
            "example  rio edit-info --crs EPSG:25832 FILE ) or leave --coordinates out"
        )
    if tiling.whole_maps and raster.size[0] * raster.size[1] > MAX_PIXELS:
        raise ImageError(
            f"{path}: has more than the {MAX_PIXELS / 1e6:g} megapixels up to which a label map or --partition, which "
            "hold a number for every pixel, can be made"
        )


def _drawn(raster: Raster) -> int:
    """How many masks an overlay shows: as many as that of a photo, more for what is larger."""
    return min(100, max(16, 2 * raster.size[0] * raster.size[1] // 1_000_000))


def _reduced(raster: Raster) -> np.ndarray:
    """The whole picture, no longer than an overlay's side."""
    step = max(1, -(-max(raster.size) // LONGEST_SIDE)) if raster.reduces else 1
    rows, cols = ((0, -(-side // step)) for side in raster.size)
    return shrunk(raster.read(rows, cols, step).pixels)
