"""A small synthetic data set in COCO's format, to try training on without any data of one's own.

Woven patches lie on a table that is woven in nearly the same colours: blobs, bars and stars that overlap one another,
told from the ground and from each other by the direction and width of their stripes more than by colour. Every object
is annotated, so that any place without one may serve as a negative. The same seed gives the same files.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as coco_mask

from sharpmask.errors import ConfigError
from sharpmask.files import atomic_write

HEIGHT, WIDTH = 240, 320
KINDS = ("blob", "bar", "star")
# A visible part of fewer pixels is no object any more: the photo is drawn anew.
_LEAST_AREA = 150
_FINE = 4  # outlines are drawn at so many times the size and then reduced


@dataclass(frozen=True)
class Scene:
    """A photo uint8 (HEIGHT, WIDTH, 3) and, for each object from back to front, the mask of what is visible of it,
    bool (HEIGHT, WIDTH), and its kind, an index into KINDS."""

    photo: np.ndarray
    masks: list[np.ndarray]
    kinds: list[int]


def draw_scene(rng: np.random.Generator) -> Scene:
    """One photo of three to eight objects."""
    while True:
        colour = rng.uniform(70, 180, 3)
        canvas = _weave(rng, colour)
        masks: list[np.ndarray] = []
        kinds = rng.integers(len(KINDS), size=rng.integers(3, 9)).tolist()
        for kind in kinds:
            mask, soft = _shape(rng, KINDS[kind])
            shadow = np.asarray(Image.fromarray((soft * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(4)))
            canvas[2:, 2:] *= 1 - 0.25 * shadow[:-2, :-2, None] / 255
            cloth = _weave(rng, colour + rng.uniform(-28, 28, 3))
            canvas += soft[..., None] * (cloth - canvas)
            masks = [below & ~mask for below in masks] + [mask]
        if all(mask.sum() >= _LEAST_AREA for mask in masks):
            noise = rng.normal(0, 5, canvas.shape)
            return Scene((canvas + noise).clip(0, 255).astype(np.uint8), masks, kinds)


def write_sample(output: str | Path, *, train: int = 60, val: int = 20, seed: int = 0) -> list[Path]:
    """Write `train.json` and `val.json` (COCO instances) with their photos in `train/` and `val/`.

    Args:
        output: folder, made where it is not there; files of an earlier sample in it are replaced.
        train, val: photos of each part, at least 1.
        seed: of everything.

    Returns: the two annotation files.

    Raises:
        ConfigError: a count or seed out of range, or a folder that cannot be made.
    """
    if min(train, val) < 1 or seed < 0:
        raise ConfigError(f"train {train}, val {val}, seed {seed}: photos must be at least 1, the seed not negative")
    return [_write_part(Path(output), name, count, seed) for name, count in (("train", train), ("val", val))]


def _write_part(output: Path, name: str, count: int, seed: int) -> Path:
    folder = output / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        scene = draw_scene(np.random.default_rng((seed, number, name == "val")))
        file_name = f"{number:03d}.jpg"
        with atomic_write(folder / file_name) as temporary:
            Image.fromarray(scene.photo).save(temporary, "JPEG", quality=92)
        images.append({"id": number, "file_name": file_name, "height": HEIGHT, "width": WIDTH})
        for mask, kind in zip(scene.masks, scene.kinds, strict=True):
            code: dict[str, Any] = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": kind + 1,
                    "iscrowd": 0,
                    "segmentation": {"size": code["size"], "counts": code["counts"].decode("ascii")},
                    "bbox": coco_mask.toBbox(code).tolist(),
                    "area": int(mask.sum()),
                }
            )
    categories = [{"id": place, "name": kind} for place, kind in enumerate(KINDS, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    path = output / f"{name}.json"
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
    return path


def _weave(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Two sets of stripes across each other over a mottled ground, float (HEIGHT, WIDTH, 3)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    turn, width = rng.uniform(0, np.pi), rng.uniform(3, 9)
    pattern = np.zeros((HEIGHT, WIDTH))
    for angle, strength in ((turn, 14), (turn + np.pi / 2, 7)):
        along = x * np.cos(angle) + y * np.sin(angle)
        pattern += strength * np.sin(2 * np.pi * along / width + rng.uniform(0, 6))
    coarse = rng.normal(0, 60, (HEIGHT // 24, WIDTH // 24)).clip(-127, 127) + 127
    mottle = np.asarray(Image.fromarray(coarse.astype(np.uint8)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    return colour + (pattern + (mottle - 127.0) / 8)[..., None]


def _shape(rng: np.random.Generator, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """A shape of this kind somewhere in the photo: its mask, bool, and how much of each pixel it covers, 0…1."""
    turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    if kind == "blob":
        radius = 1 + sum(rng.uniform(-0.3, 0.3) / n * np.cos(n * turn + rng.uniform(0, 6)) for n in (2, 3, 4))
        stretch = rng.uniform(0.6, 1.0)
    elif kind == "bar":
        radius, stretch = (np.cos(turn) ** 8 + np.sin(turn) ** 8) ** (-1 / 8), rng.uniform(0.15, 0.4)
    else:
        radius, stretch = 1 + rng.uniform(0.3, 0.5) * np.cos(rng.integers(4, 7) * turn), rng.uniform(0.8, 1.0)
    size = np.exp(rng.uniform(np.log(18), np.log(60)))
    angle = rng.uniform(0, np.pi)
    across, down = size * radius * np.cos(turn), size * stretch * radius * np.sin(turn)
    x = rng.uniform(0.08, 0.92) * WIDTH + across * np.cos(angle) - down * np.sin(angle)
    y = rng.uniform(0.08, 0.92) * HEIGHT + across * np.sin(angle) + down * np.cos(angle)
    drawing = Image.new("L", (WIDTH * _FINE, HEIGHT * _FINE))
    ImageDraw.Draw(drawing).polygon((np.stack([x, y], axis=1) * _FINE).ravel().tolist(), fill=255)
    soft = np.asarray(drawing.reduce(_FINE)) / 255
    return soft >= 0.5, soft
