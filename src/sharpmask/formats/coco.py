"""COCO with polygons: one data set file, `coco_polygons.json`, to be read with `COCO("coco_polygons.json")`.

COCO's polygons cannot have holes: the parts of a `segmentation` are united. Each part of a mask is one polygon, its
holes joined to the outside by cuts of no width, which pycocotools fills to the very mask. Each annotation has its
`score` and `rank` (from 1) besides COCO's own fields; `area` is that of the mask. COCO results with RLE, as evaluation
reads them, are the format "coco".
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sharpmask.files import atomic_write
from sharpmask.formats.contours import outline
from sharpmask.formats.joining import without_holes
from sharpmask.formats.numbers import flat_list
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.folder import Photo, Write
from sharpmask.proposals.result import Proposals


@contextmanager
def open_coco_polygons(output: Path, options: FormatOptions) -> Iterator[Write]:
    images: list[dict[str, Any]] = []
    number = 0
    with atomic_write(output / "coco_polygons.json") as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write('{"annotations": [')

        def write(photo: Photo, proposals: Proposals) -> None:
            nonlocal number
            images.append(photo.record)
            for index, entry in enumerate(proposals.to_coco(photo.record["id"])):
                parts = outline(proposals, index, options.simplify)
                entry["segmentation"] = [flat_list(without_holes(part)) for part in parts]
                number += 1
                entry |= {"id": number, "area": int(proposals.areas[index]), "iscrowd": 0, "rank": index + 1}
                file.write(("\n" if number == 1 else ",\n") + json.dumps(entry, separators=(",", ":")))

        yield write
        rest = {"images": images, "categories": [{"id": 1, "name": options.label}]}
        file.write("\n],\n" + json.dumps(rest, indent=1)[2:] + "\n")
