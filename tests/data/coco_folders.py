"""Small COCO datasets made on the spot."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sharpmask.data.coco import CocoDataset, read_coco

# the ground is near the grey of the padding, so that one threshold finds an object against both
GROUND, OBJECT = 120, 230


def rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    """The polygon of a rectangle, xywh."""
    return [x, y, x + width, y, x + width, y + height, x, y + height]


class Folder:
    """A folder of images and the annotation file of them, filled step by step."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []
        self.categories = [{"id": number, "name": f"thing {number}"} for number in (1, 3, 90)]

    def photo(self, pixels: np.ndarray, **more: Any) -> int:
        """Save a photo losslessly; returns its image id."""
        identifier = len(self.images) + 1
        name = f"{identifier:03d}.png"
        Image.fromarray(pixels).save(self.path / name)
        height, width = pixels.shape[:2]
        self.images.append({"id": identifier, "file_name": name, "height": height, "width": width, **more})
        return identifier

    def add(self, image_id: int, segmentation: Any, **more: Any) -> dict[str, Any]:
        """An annotation without bbox and area unless given, which are then taken from the mask."""
        entry = {"id": len(self.annotations) + 1, "image_id": image_id, "category_id": 1, "iscrowd": 0}
        self.annotations.append({**entry, "segmentation": segmentation, **more})
        return self.annotations[-1]

    def scene(self, size: tuple[int, int], box: tuple[float, float, float, float], **more: Any) -> int:
        """A dark photo of (H, W) with one bright rectangle xywh on whole pixels, annotated; returns the image id."""
        pixels = np.full((*size, 3), GROUND, dtype=np.uint8)
        x, y, width, height = (round(value) for value in box)
        pixels[y : y + height, x : x + width] = OBJECT
        image_id = self.photo(pixels, **more)
        self.add(image_id, [rectangle(x, y, width, height)])
        return image_id

    @property
    def json(self) -> Path:
        path = self.path / "instances.json"
        content = {"images": self.images, "annotations": self.annotations, "categories": self.categories}
        path.write_text(json.dumps(content))
        return path

    def read(self) -> CocoDataset:
        return read_coco(self.json)
