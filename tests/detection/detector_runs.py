"""Detector runs that take seconds, and photos of two kinds of shapes that a small network can tell apart."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from sharpmask.detection.config import DetectorConfig


def write_shapes(folder: Path, *, count: int = 6, seed: int = 5) -> Path:
    """Photos of 120 x 160, each with a red disc and a blue square on grey noise; `truth.json` and, as proposals.json,
    their boxes and masks moved a little and some boxes of the ground.
    """
    rng = np.random.default_rng(seed)
    images, annotations, proposals = [], [], []
    for number in range(1, count + 1):
        photo = Image.fromarray(rng.integers(90, 130, (120, 160, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(photo)
        left = rng.permutation([8, 88])
        for category, x in zip((3, 8), left.tolist(), strict=True):
            side, y = int(rng.integers(36, 56)), int(rng.integers(8, 50))
            box = [x, y, x + side - 1, y + side - 1]
            shape = Image.new("L", photo.size)
            if category == 3:
                draw.ellipse(box, fill=(220, 40, 40))
                ImageDraw.Draw(shape).ellipse(box, fill=1)
            else:
                draw.rectangle(box, fill=(40, 40, 220))
                ImageDraw.Draw(shape).rectangle(box, fill=1)
            mask = np.asarray(shape)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "iscrowd": 0,
                    **_shape_fields(mask),
                }
            )
            for _ in range(8):
                moved = np.roll(mask, rng.integers(-5, 6, 2), axis=(0, 1))
                proposals.append({"image_id": number, "category_id": 1, "score": 0.9, **_shape_fields(moved)})
        for _ in range(16):
            x, y, w, h = (*rng.integers(0, [100, 70]).tolist(), *rng.integers(14, 50, 2).tolist())
            mask = np.zeros((120, 160), np.uint8)
            mask[y : y + h, x : x + w] = 1
            proposals.append({"image_id": number, "category_id": 1, "score": 0.5, **_shape_fields(mask)})
        photo.save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 120, "width": 160})
    categories = [{"id": 3, "name": "disc"}, {"id": 8, "name": "square"}, {"id": 9, "name": "star"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "truth.json").write_text(json.dumps(content))
    (folder / "proposals.json").write_text(json.dumps(proposals))
    return folder


def _shape_fields(mask: np.ndarray) -> dict[str, object]:
    code = coco_mask.encode(np.asfortranarray(mask))
    return {
        "segmentation": {"size": code["size"], "counts": code["counts"].decode()},
        "bbox": coco_mask.toBbox(code).tolist(),
        "area": int(mask.sum()),
    }


def detector_run(folder: Path, output: Path, **more: object) -> DetectorConfig:
    """A few steps on the shapes of `write_shapes`."""
    settings: dict[str, object] = {
        "annotations": str(folder / "truth.json"),
        "images": str(folder),
        "output": str(output),
        "detector": "fast-rcnn-lite0",
        "trunk_weights": "sharpmask-lite0",
        "proposals": str(folder / "proposals.json"),
        "min_examples": 1,
        "short_side": 96,
        "steps": 4,
        "batch_size": 2,
        "rois": 16,
        "optimiser": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "milestones": (),
        "factors": (),
        "warmup": 0,
        "average": 0.5,
        "trunk_factor": 0.0,
        "workers": 0,
        "checkpoint_every": 1,
        "log_every": 1,
        "device": "cpu",
    }
    return DetectorConfig(**{**settings, **more})  # type: ignore[arg-type]
