"""Proposals of a classical method, in the same format as the model's, so that one table sets them side by side.

Selective Search (Uijlings et al., IJCV 2013) from OpenCV's contrib modules: boxes of a hierarchy of merged regions.

Order. The method draws a random number for each region and multiplies it by its place in the hierarchy, so that large
regions tend to come first but the ranking is partly random. OpenCV counts the levels from the other end, which puts the
small leaves first; on COCO photos that is far worse than chance among the first 10 and 100. "paper" (the default)
therefore reads OpenCV's list from its end; "opencv" keeps it as returned. A baseline should be as strong as it
honestly can be.
"""

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
from PIL import Image
from tqdm import tqdm

from sharpmask.errors import ConfigError, DataError, ImageError, MissingExtraError
from sharpmask.evaluation.inputs import read_annotations
from sharpmask.files import atomic_write
from sharpmask.images import find_images, read_image

Mode = Literal["fast", "quality"]
Order = Literal["paper", "opencv"]

# Above this OpenCV's matrix of neighbouring regions needs gigabytes; larger images are shrunk to it first.
MAX_PIXELS = 2_000_000


@dataclass(frozen=True)
class BaselineRun:
    """What a run did. `failed`: a message for each image that could not be read; `skipped`: files without
    annotations."""

    images: int
    proposals: int
    seconds: float  # of the method alone, over all images
    failed: list[str]
    skipped: list[str]


def selective_search(
    image: np.ndarray, *, top: int | None = 1000, mode: Mode = "fast", order: Order = "paper", seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of one image, best first, and their scores.

    image: (H, W, 3) uint8 RGB. top: at most so many; None keeps all. mode: OpenCV's "fast" (2 colour spaces, 3 sizes, 2
    similarities) or "quality" (5, 5 and 4). order: see the module. seed: of the random part of the ranking.
    Returns boxes_xywh (N, 4) float64 in pixels of `image` and scores (N,): only the rank means anything, they fall
    evenly from 1 towards 0. The same arguments give the same boxes. Raises MissingExtraError without OpenCV's contrib
    modules.
    """
    cv2 = require_opencv()
    height, width = image.shape[:2]
    scale = min(1.0, (MAX_PIXELS / (height * width)) ** 0.5)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        cv2.setRNGSeed(seed)
        _seed_c_random(seed)
        search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(image[:, :, ::-1]))
        if mode == "fast":
            search.switchToSelectiveSearchFast()
        else:
            search.switchToSelectiveSearchQuality()
        boxes = np.asarray(search.process(), np.float64).reshape(-1, 4)
    except cv2.error as error:
        raise ImageError(f"selective search fails on this image of {width}x{height} pixels: {error}") from error
    finally:
        cv2.setNumThreads(threads)
    if order == "paper":
        boxes = boxes[::-1]
    boxes = boxes[:top] * np.tile([width / image.shape[1], height / image.shape[0]], 2)
    return boxes, 1 - np.arange(len(boxes)) / max(len(boxes), 1)


def write_selective_search(
    inputs: Sequence[str | Path],
    *,
    annotations: str | Path,
    output: str | Path,
    top: int = 1000,
    mode: Mode = "fast",
    order: Order = "paper",
    seed: int = 0,
    progress: bool = True,
) -> BaselineRun:
    """Selective Search on images (files, folders, patterns), written as COCO results with boxes and no masks.

    annotations: the image ids are those of this COCO file, by file name; images that it does not list are skipped.
    top, mode, order, seed: see `selective_search`. The file appears when all is done, or not at all.
    Images that cannot be read are left out and named in the result. Raises DataError where no image is listed.
    """
    if top < 1:
        raise ConfigError(f"the number of proposals must be at least 1, not {top}")
    if seed < 0:
        raise ConfigError(f"the seed must not be negative, it is {seed}")
    require_opencv()  # say at once that it is missing
    ids = read_annotations(annotations).file_names
    by_name = {os.path.basename(name): image_id for name, image_id in ids.items()}
    files: dict[Any, Path] = {}
    skipped = []
    for path in find_images(inputs):
        image_id = next((ids[name] for name in _endings(path) if name in ids), by_name.get(path.name))
        if image_id is None or image_id in files:
            skipped.append(str(path))
        else:
            files[image_id] = path
    if not files:
        raise DataError(
            f"{annotations}: lists none of the {len(skipped)} images by file name (the first is {skipped[0]})"
        )
    count, seconds = 0, 0.0
    failed = []
    with atomic_write(output) as temporary, open(temporary, "w", encoding="utf-8") as out:
        out.write("[")
        for image_id, path in tqdm(
            files.items(), desc=f"selective search ({mode})", unit="image", disable=None if progress else True
        ):
            try:
                image = read_image(path)
                start = perf_counter()
                boxes, scores = selective_search(image, top=top, mode=mode, order=order, seed=seed)
            except ImageError as error:
                failed.append(str(error) if path.name in str(error) else f"{path}: {error}")
                continue
            seconds += perf_counter() - start
            for box, score in zip(boxes.tolist(), scores.tolist(), strict=True):
                record = {
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": [round(value, 2) for value in box],
                    "score": round(score, 6),
                }
                out.write(("\n" if not count else ",\n") + json.dumps(record))
                count += 1
        out.write("\n]\n")
        if len(failed) == len(files):
            raise DataError(f"none of {len(files)} images could be read: {failed[0]}")
    return BaselineRun(len(files) - len(failed), count, seconds, failed, skipped)


def _endings(path: Path) -> list[str]:
    """The path's last parts, longest first: file names of annotations may hold folders."""
    parts = path.parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def require_opencv() -> Any:
    """The module cv2; MissingExtraError where it is not installed, or without its contrib modules."""
    try:
        import cv2

        cv2.ximgproc.segmentation  # noqa: B018  only the contrib build has it
    except (ImportError, AttributeError) as error:
        raise MissingExtraError("opencv-contrib-python-headless", "baselines", "Selective Search") from error
    return cv2


def _seed_c_random(seed: int) -> None:
    """OpenCV ranks the regions with the C library's rand(), which its own seed does not reach."""
    name = "ucrtbase" if sys.platform == "win32" else None
    with suppress(OSError, AttributeError):  # an unusual C library: the ranking then changes from run to run
        ctypes.CDLL(name).srand(seed % 2**31)
