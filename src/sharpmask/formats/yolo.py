"""YOLO segmentation labels: `yolo/labels/<name>.txt` for each photo, and `yolo/data.yaml`.

A line is one proposal, best first: `0 x1 y1 x2 y2 …`, one polygon in shares of the photo's width and height (continuous
coordinates, 0 is the outer edge of the first pixel and 1 that of the last). The format has neither holes nor parts:
they are joined by bridges of no width. A photo without proposals gets an empty file. Put the photos, or a link to
their folder, at `yolo/images` to train on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import yaml

from sharpmask.files import atomic_write, make_folder
from sharpmask.formats.contours import outline
from sharpmask.formats.joining import one_polygon
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.folder import Photo, Write
from sharpmask.proposals.result import Proposals


@contextmanager
def open_yolo(output: Path, options: FormatOptions) -> Iterator[Write]:
    folder = make_folder(output / "yolo" / "labels")

    def write(photo: Photo, proposals: Proposals) -> None:
        height, width = photo.size
        # A tenth of a thousandth of a pixel, so that reading gives the same pixels.
        digits = len(str(max(height, width))) + 4
        with atomic_write(folder / f"{photo.name}.txt") as temporary, open(temporary, "w", encoding="utf-8") as file:
            for index in range(len(proposals)):
                polygon = one_polygon(outline(proposals, index, options.simplify))
                if len(polygon):
                    shares = (polygon / (width, height)).ravel()
                    file.write("0 " + " ".join(np.char.mod(f"%.{digits}g", shares)) + "\n")

    yield write
    # No `path`: a relative one would be taken from where the training program runs, without it from this file's folder.
    settings = {"train": "images", "val": "images", "names": {0: options.label}}
    with atomic_write(output / "yolo" / "data.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), encoding="utf-8")
