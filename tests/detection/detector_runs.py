"""Detector runs that take seconds, also of several processes, and photos of shapes that a small network can tell."""

import dataclasses
import json
import multiprocessing
import os
import socket
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from sharpmask.detection.config import DetectorConfig
from sharpmask.detection.specs import DETECTORS
from sharpmask.detection.train import train_detector
from sharpmask.errors import ConfigError


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


def train_in_processes(config: DetectorConfig, size: int) -> list[int]:
    """Train without dropout in so many processes, as torchrun starts them; their exit codes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["sharpmask.detection.train"])
    processes = [server.Process(target=_one_process, args=(config, rank, size, port)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
    return [process.exitcode for process in processes]


def _one_process(config: DetectorConfig, rank: int, size: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, spec in list(DETECTORS.items()):  # each process draws its own dropout
        DETECTORS[name] = dataclasses.replace(spec, hidden=16, dropout=0.0)
    try:
        train_detector(config)
    except ConfigError:
        sys.exit(2)
