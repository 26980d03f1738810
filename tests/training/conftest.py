"""A small COCO dataset with bright shapes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six noisy photos of 200 x 240 with two ellipses each; `instances.json` beside them."""
    folder = tmp_path_factory.mktemp("shapes")
    rng = np.random.default_rng(3)
    images, annotations = [], []
    for number in range(1, 7):
        photo = Image.fromarray(rng.integers(60, 120, (200, 240, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(photo)
        for side in range(2):
            x, y, a, b = 60 + 110 * side, rng.integers(60, 140), rng.integers(20, 45), rng.integers(20, 45)
            colour = tuple(int(c) for c in rng.integers(150, 255, 3))
            draw.ellipse([x - a, y - b, x + a, y + b], fill=colour)
            turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
            polygon = np.stack([x + 0.5 + a * np.cos(turn), y + 0.5 + b * np.sin(turn)], axis=1).round(2)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1 + side,
                    "iscrowd": 0,
                    "segmentation": [polygon.flatten().tolist()],
                    "area": float(np.pi * a * b),
                    "bbox": [float(x - a), float(y - b), float(2 * a), float(2 * b)],
                }
            )
        photo.save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 200, "width": 240})
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder
