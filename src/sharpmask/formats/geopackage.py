"""GeoPackage: `geopackage/<name>.gpkg` for each photo, with one layer, `proposals` (needs the extra `geo`).

A feature is one proposal, best first, as a MultiPolygon with holes, in the coordinates that GeoJSON gets (see
`geojson`): the photo's own coordinate system, longitude and latitude, or, in a layer without a system, pixels with y
downwards. Attributes: label, rank (from 1), score, area (pixels), area_m2 (null where it is not known).
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sharpmask.errors import MissingExtraError, SharpMaskError
from sharpmask.files import atomic_write, make_folder
from sharpmask.formats.contours import outline
from sharpmask.formats.options import FormatOptions
from sharpmask.formats.placing import Placing, place
from sharpmask.proposals.folder import Photo, Write
from sharpmask.proposals.result import Proposals

LAYER = "proposals"
_ROWS = 2_000  # features in memory at a time


@contextmanager
def open_geopackage(output: Path, options: FormatOptions) -> Iterator[Write]:
    try:
        import pyogrio  # noqa: F401  (only to see whether it is there)
    except ImportError as error:
        raise MissingExtraError("pyogrio", "geo", "the format geopackage") from error
    folder = make_folder(output / "geopackage")

    def write(photo: Photo, proposals: Proposals) -> None:
        placing = place(photo, options)
        with atomic_write(folder / f"{photo.name}.gpkg") as temporary:
            for begin in range(0, max(1, len(proposals)), _ROWS):
                rows = range(begin, min(begin + _ROWS, len(proposals)))
                _write_rows(temporary, proposals, rows, placing, options, append=begin > 0)

    yield write


def _write_rows(
    path: Path, proposals: Proposals, rows: range, placing: Placing, options: FormatOptions, *, append: bool
) -> None:
    from pyogrio.errors import DataLayerError, DataSourceError, FieldError
    from pyogrio.raw import write

    geometry = np.empty(len(rows), object)
    for place_, index in enumerate(rows):
        geometry[place_] = multipolygon(placing.polygons(outline(proposals, index, options.simplify)))
    square_metres = [placing.square_metres(proposals, index) for index in rows]
    fields: dict[str, Any] = {
        "label": np.full(len(rows), options.label, object),
        "rank": np.array(rows, np.int32) + np.int32(1),
        "score": proposals.scores[rows.start : rows.stop],
        "area": proposals.areas[rows.start : rows.stop],
        "area_m2": np.array([np.nan if value is None else value for value in square_metres], np.float64),
    }
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")  # of pixels
            write(
                path,
                geometry,
                list(fields.values()),
                list(fields),
                geometry_type="MultiPolygon",
                crs=placing.crs,
                driver="GPKG",
                layer=LAYER,
                append=append,
            )
    except (DataLayerError, DataSourceError, FieldError, RuntimeError) as error:
        raise SharpMaskError(f"cannot write the GeoPackage: {str(error).splitlines()[0]}; is the disk full?") from error


def multipolygon(polygons: list[list[np.ndarray]]) -> bytes:
    """Polygons, each a list of closed rings (n,2) with the shell first, as well-known binary."""
    parts = [struct.pack("<BII", 1, 6, len(polygons))]
    for rings in polygons:
        parts.append(struct.pack("<BII", 1, 3, len(rings)))
        for ring in rings:
            parts += [struct.pack("<I", len(ring)), np.ascontiguousarray(ring, "<f8").tobytes()]
    return b"".join(parts)
