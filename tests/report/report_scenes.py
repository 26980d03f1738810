"""Photos with rectangles whose masks, proposals and matches are known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

GROUND, OBJECT = (90, 100, 110), (240, 200, 40)


def rle(size: tuple[int, int], x: int, y: int, width: int, height: int) -> dict[str, Any]:
    """The mask of a rectangle in a photo of (H, W)."""
    mask = np.zeros(size, np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    code = coco_mask.encode(mask)
    return {"size": list(size), "counts": code["counts"].decode("ascii")}


class Scene:
    """A folder with `photos/`, `ann.json` and `proposals.json`, filled step by step; boxes are xywh in pixels."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.photos = path / "photos"
        self.photos.mkdir()
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []

    def photo(self, name: str, size: tuple[int, int], objects: list[tuple[int, int, int, int]]) -> int:
        """Save a photo with bright rectangles, all of them annotated; returns its id."""
        identifier = len(self.images) + 1
        pixels = np.full((*size, 3), GROUND, np.uint8)
        for x, y, width, height in objects:
            pixels[y : y + height, x : x + width] = OBJECT
            segmentation = [[x, y, x + width, y, x + width, y + height, x, y + height]]
            entry = {"id": len(self.annotations) + 1, "image_id": identifier, "category_id": 7, "iscrowd": 0}
            self.annotations.append({**entry, "segmentation": segmentation, "bbox": [x, y, width, height]})
        Image.fromarray(pixels).save(self.photos / name)
        self.images.append({"id": identifier, "file_name": name, "height": size[0], "width": size[1]})
        return identifier

    def propose(self, image_id: int, box: tuple[int, int, int, int], score: float, *, mask: bool = True) -> None:
        image = self.images[image_id - 1]
        entry = {"image_id": image_id, "category_id": 1, "bbox": list(box), "score": score}
        if mask:
            entry["segmentation"] = rle((image["height"], image["width"]), *box)
        self.results.append(entry)

    def save(self) -> None:
        content = {"images": self.images, "annotations": self.annotations, "categories": [{"id": 7, "name": "crate"}]}
        (self.path / "ann.json").write_text(json.dumps(content))
        (self.path / "proposals.json").write_text(json.dumps(self.results))

    def arguments(self, **changes: Any) -> dict[str, Any]:
        """Keyword arguments of `write_view`."""
        names = {"images": "photos", "annotations": "ann.json", "output": "report.html"}
        given = {"proposals": self.path / "proposals.json", **{key: self.path / name for key, name in names.items()}}
        return {**given, "resamples": 20, "progress": False, **changes}


def embedded(page: Path, name: str) -> Any:
    """The data of that name in a report."""
    text = page.read_text(encoding="utf-8")
    start = text.index(f'id="{name}">') + len(f'id="{name}">')
    return json.loads(text[start : text.index("</script>", start)])
