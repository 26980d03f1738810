"""GeoJSON in pixels: `geojson/<name>.geojson` for each photo, a FeatureCollection, best proposal first.

Coordinates are (x, y) in pixels of the photo, continuous, y DOWNWARDS from the upper edge (0, 0 is the outer corner of
the first pixel); programs that draw y upwards show the photo upside down. Rings are closed; shells run
counter-clockwise and holes clockwise by the signs of the numbers, as RFC 7946 asks. Holes are interior rings; a mask of
several parts is a MultiPolygon. Properties: rank (from 1), score, area (pixels). Foreign members of the collection say
the image, its size and the meaning of the coordinates.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sharpmask.files import atomic_write
from sharpmask.formats.contours import Part, outline
from sharpmask.formats.folders import make_folder
from sharpmask.formats.numbers import exact, pair_list
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.folder import Photo, Write
from sharpmask.proposals.result import Proposals


@contextmanager
def open_geojson(output: Path, options: FormatOptions) -> Iterator[Write]:
    folder = make_folder(output / "geojson")

    def write(photo: Photo, proposals: Proposals) -> None:
        with (
            atomic_write(folder / f"{photo.name}.geojson") as temporary,
            open(temporary, "w", encoding="utf-8") as file,
        ):
            head = {
                "type": "FeatureCollection",
                "image": photo.record["file_name"],
                "image_id": photo.record["id"],
                "width": photo.size[1],
                "height": photo.size[0],
                "coordinates": "pixels, x to the right, y downwards, origin at the upper left corner of the image",
            }
            file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [')
            for index in range(len(proposals)):
                feature = _feature(proposals, index, outline(proposals, index, options.simplify), options.label)
                file.write((",\n" if index else "\n") + json.dumps(feature, separators=(",", ":"), ensure_ascii=False))
            file.write("\n]}\n")

    yield write


def _feature(proposals: Proposals, index: int, parts: list[Part], label: str) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": index + 1,
        "geometry": geometry(parts),
        "properties": {
            "label": label,
            "rank": index + 1,
            "score": exact(proposals.scores[index]),
            "area": int(proposals.areas[index]),
        },
    }


def geometry(parts: list[Part]) -> dict[str, Any] | None:
    """A Polygon, or a MultiPolygon of several parts; None (an unlocated feature) without any."""
    polygons = [[_closed(ring) for ring in (part.shell, *part.holes)] for part in parts]
    if not polygons:
        return None
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _closed(ring: np.ndarray) -> list[list[float]]:
    return pair_list(np.concatenate([ring, ring[:1]]))
