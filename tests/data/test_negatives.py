"""What may be a negative, checked against the rule written out in plain loops."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from coco_folders import GROUND, Folder, rectangle

from sharpmask.data.coco import CocoDataset
from sharpmask.data.geometry import CanonicalGeometry, Window
from sharpmask.data.negatives import NegativeSource
from sharpmask.errors import DataError

GEOMETRY = CanonicalGeometry()
PAPER = dataclasses.replace(GEOMETRY, negative_shift=32.0, negative_octaves=1.0)


def violation(dataset: CocoDataset, image_id: int, window: Window, geometry: CanonicalGeometry) -> str:
    """Why a window is no negative, or ''."""
    record = dataset.image_by_id[image_id]
    if not record.exhaustive:
        return "not exhaustive"
    if not (0 <= window.x <= record.width and 0 <= window.y <= record.height):
        return "centre outside"
    for annotation in dataset.annotations_of[image_id]:
        x, y, width, height = annotation.bbox
        if annotation.iscrowd:
            dx = max(x - window.x, window.x - x - width)
            dy = max(y - window.y, window.y - y - height)
            if max(dx, dy) * window.scale < geometry.negative_shift - 1e-6:
                return "crowd"
            continue
        octaves = abs(math.log2(window.scale) - math.log2(92 / max(width, height)))
        distance = max(abs(window.x - x - width / 2), abs(window.y - y - height / 2)) * window.scale
        if octaves <= geometry.negative_octaves and distance < geometry.negative_shift - 1e-6:
            return "object"
    return ""


@pytest.fixture
def scenes(folder: Folder) -> Folder:
    blank = np.full((200, 300, 3), GROUND, np.uint8)
    first = folder.photo(blank)
    folder.add(first, [rectangle(40, 50, 60, 30)])
    folder.add(first, [rectangle(200, 120, 8, 8)])
    second = folder.photo(blank, exhaustive=False)
    folder.add(second, [rectangle(10, 10, 20, 20)])
    third = folder.photo(blank)
    folder.add(third, [rectangle(0, 0, 120, 200)], iscrowd=1)
    folder.photo(blank)  # background only
    return folder


@pytest.mark.parametrize("geometry", [GEOMETRY, PAPER], ids=["release", "paper"])
def test_negatives_keep_the_rule(scenes: Folder, geometry: CanonicalGeometry) -> None:
    dataset = scenes.read()
    source = NegativeSource(dataset, geometry)
    rng = np.random.default_rng(0)
    drawn = [source.draw(rng) for _ in range(1500)]
    assert {violation(dataset, image_id, window, geometry) for image_id, window in drawn} == {""}
    assert {image_id for image_id, _ in drawn} == {1, 3, 4}
    exponents = {round(math.log2(window.scale), 6) for image_id, window in drawn if image_id == 4}
    assert exponents == set(np.arange(-3, 2.01, 0.25).tolist())


def test_the_rule_is_no_stricter_than_stated(scenes: Folder) -> None:
    """Of random windows exactly those that the plain loops allow are allowed."""
    dataset = scenes.read()
    source = NegativeSource(dataset, GEOMETRY)
    rng = np.random.default_rng(1)
    seen = {True: 0, False: 0}
    for image_id, place in zip(source.image_ids, source.places, strict=True):
        points = rng.uniform((0, 0), (300, 200), size=(400, 2))
        exponents = rng.choice(GEOMETRY.negative_exponents, size=400)
        for (x, y), exponent, allowed in zip(
            points.tolist(), exponents, place.allowed(points, exponents, GEOMETRY), strict=True
        ):
            assert allowed == (not violation(dataset, image_id, Window(x, y, 2.0**exponent), GEOMETRY))
            seen[bool(allowed)] += 1
    assert min(seen.values()) > 100


def test_negatives_of_real_photos_keep_the_rule(coco_mini: Callable[[str], tuple[CocoDataset, Path]]) -> None:
    dataset, _ = coco_mini("train")
    source = NegativeSource(dataset, GEOMETRY)
    rng = np.random.default_rng(2)
    drawn = [source.draw(rng) for _ in range(300)]
    assert {violation(dataset, image_id, window, GEOMETRY) for image_id, window in drawn} == {""}


def test_without_exhaustive_images_there_are_none(folder: Folder) -> None:
    folder.scene((60, 60), (10, 10, 20, 20), exhaustive=False)
    with pytest.raises(DataError, match="exhaustive"):
        NegativeSource(folder.read(), GEOMETRY)


def test_images_full_of_crowd_end_in_a_clear_error(folder: Folder) -> None:
    image_id = folder.photo(np.full((50, 50, 3), GROUND, np.uint8))
    folder.add(image_id, [rectangle(0, 0, 50, 50)], iscrowd=1)
    with pytest.raises(DataError, match="background"):
        NegativeSource(folder.read(), GEOMETRY).draw(np.random.default_rng(0))
