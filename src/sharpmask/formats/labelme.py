"""labelme: `labelme/<name>.json` for each photo, which labelme opens in place of the photo.

Polygons (the default) or masks. A proposal's parts are polygons with the same `group_id`, which is its rank from 1;
holes are joined to the outside by cuts of no width. A mask is labelme's own shape of that name: the corner pixels of
its box and a PNG of its inside. The score stands in `description`. `imagePath` leads from the JSON to the photo.
"""

import base64
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sharpmask.files import atomic_write, make_folder, writable
from sharpmask.formats.contours import outline
from sharpmask.formats.joining import without_holes
from sharpmask.formats.numbers import exact, pair_list
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.folder import Photo, Write
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import decode_window

VERSION = "5.5.0"  # of the file format's description that this follows


@contextmanager
def open_labelme(output: Path, options: FormatOptions) -> Iterator[Write]:
    folder = make_folder(output / "labelme")

    def write(photo: Photo, proposals: Proposals) -> None:
        shapes = _masks(proposals) if options.shapes == "masks" else _polygons(proposals, options.simplify)
        content: dict[str, Any] = {
            "version": VERSION,
            "flags": {},
            "shapes": [
                {
                    "label": options.label,
                    "group_id": index + 1,
                    "description": f"score {exact(proposals.scores[index]):g}",
                    "flags": {},
                    **shape,
                }
                for index, shape in shapes
            ],
            "imagePath": writable(Path(_relative(photo.path, folder)).as_posix()),
            "imageData": None,
            "imageHeight": photo.size[0],
            "imageWidth": photo.size[1],
        }
        with atomic_write(folder / f"{photo.name}.json") as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    yield write


def _polygons(proposals: Proposals, simplify: float) -> Iterator[tuple[int, dict[str, Any]]]:
    for index in range(len(proposals)):
        for part in outline(proposals, index, simplify):
            yield index, {"shape_type": "polygon", "points": pair_list(without_holes(part)), "mask": None}


def _masks(proposals: Proposals) -> Iterator[tuple[int, dict[str, Any]]]:
    for index in np.flatnonzero(proposals.areas).tolist():
        left, top, right, bottom = (int(value) for value in proposals.boxes[index])
        png = io.BytesIO()
        inside = decode_window(proposals.rles[index], left, top, right, bottom)
        Image.fromarray(inside.astype(np.uint8)).save(png, "PNG")
        corners = [[left, top], [right - 1, bottom - 1]]
        yield index, {"shape_type": "mask", "points": corners, "mask": base64.b64encode(png.getvalue()).decode("ascii")}


def _relative(path: Path, folder: Path) -> str:
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # another drive
        return str(path.absolute())
