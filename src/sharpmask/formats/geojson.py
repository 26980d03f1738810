"""GeoJSON: `geojson/<name>.geojson` for each photo, a FeatureCollection, best proposal first.

A photo that lies on the ground, such as a GeoTIFF, gets coordinates in its own coordinate system, which the member
`crs` names as programs have read it since before RFC 7946, or in longitude and latitude as that standard has it
(`FormatOptions.coordinates` "wgs84"; no `crs` then). Other photos get (x, y) in pixels, continuous, y DOWNWARDS from
the upper edge (0, 0 is the outer corner of the first pixel); programs that draw y upwards show them upside down.

Rings are closed; shells run counter-clockwise and holes clockwise by the signs of the numbers, as RFC 7946 asks. Holes
are interior rings; a mask of several parts is a MultiPolygon. Properties: rank (from 1), score, area (pixels), and on
the ground area_m2. Foreign members of the collection say the image, its size and the meaning of the coordinates.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sharpmask.files import atomic_write, make_folder
from sharpmask.formats.contours import outline
from sharpmask.formats.numbers import exact, pair_list
from sharpmask.formats.options import FormatOptions
from sharpmask.formats.placing import WGS84, Placing, place
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
            placing = place(photo, options)
            head = {
                "type": "FeatureCollection",
                **_crs(placing),
                "image": photo.record["file_name"],
                "image_id": photo.record["id"],
                "width": photo.size[1],
                "height": photo.size[0],
                "coordinates": placing.meaning,
            }
            file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [')
            for index in range(len(proposals)):
                feature = _feature(proposals, index, placing, options)
                file.write((",\n" if index else "\n") + json.dumps(feature, separators=(",", ":"), ensure_ascii=False))
            file.write("\n]}\n")

    yield write


def _crs(placing: Placing) -> dict[str, Any]:
    """The member `crs`; none for pixels, and for longitude and latitude in WGS 84, which GeoJSON means without it."""
    if placing.crs in (None, WGS84, "EPSG:4326"):
        return {}
    authority, _, code = str(placing.crs).partition(":")
    name = f"urn:ogc:def:crs:{authority}::{code}" if authority.isalnum() and code.isalnum() else placing.crs
    return {"crs": {"type": "name", "properties": {"name": name}}}


def _feature(proposals: Proposals, index: int, placing: Placing, options: FormatOptions) -> dict[str, Any]:
    properties = {
        "label": options.label,
        "rank": index + 1,
        "score": exact(proposals.scores[index]),
        "area": int(proposals.areas[index]),
    }
    square_metres = placing.square_metres(proposals, index)
    if square_metres is not None:
        properties["area_m2"] = float(f"{square_metres:.8g}")
    polygons = placing.polygons(outline(proposals, index, options.simplify))
    return {
        "type": "Feature",
        "id": index + 1,
        "geometry": geometry(polygons, placing.digits),
        "properties": properties,
    }


def geometry(polygons: list[list[np.ndarray]], digits: int = 3) -> dict[str, Any] | None:
    """A Polygon, or a MultiPolygon of several, each a list of closed rings (n,2); None (an unlocated feature) without
    any."""
    lists = [[pair_list(ring, digits) for ring in rings] for rings in polygons]
    if not lists:
        return None
    if len(lists) == 1:
        return {"type": "Polygon", "coordinates": lists[0]}
    return {"type": "MultiPolygon", "coordinates": lists}
