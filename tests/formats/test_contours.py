"""Outlines: exact, simple, valid; joined without holes; simplified within the tolerance."""

from collections.abc import Callable

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sharpmask.formats.contours import outline, signed_area, simplify, trace
from sharpmask.formats.joining import one_polygon, without_holes
from sharpmask.proposals.result import Proposals


def coco_fill(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([p.ravel().tolist() for p in polygons], *size))) > 0


def random_masks(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    masks = [rng.random(rng.integers(1, 14, 2)) < rng.random() for _ in range(count)]
    return [mask for mask in masks if mask.any()]


def test_a_pixel_and_a_donut() -> None:
    pixel = np.zeros((5, 9), bool)
    pixel[3, 7] = True
    (part,) = trace(pixel)
    assert part.holes == [] and signed_area(part.shell) == 1
    assert {tuple(point) for point in part.shell.tolist()} == {(7, 3), (8, 3), (8, 4), (7, 4)}
    donut = np.ones((3, 4), bool)
    donut[1, 1] = False
    (part,) = trace(donut, (10, 20))
    assert signed_area(part.shell) == 12 and [signed_area(hole) for hole in part.holes] == [-1]
    assert part.shell.min(axis=0).tolist() == [10, 20] and part.shell.max(axis=0).tolist() == [14, 23]
    assert part.holes[0].min(axis=0).tolist() == [11, 21]


def test_random_masks_come_back_exactly_and_are_valid() -> None:
    shapely = pytest.importorskip("shapely")
    for mask in random_masks(400):
        parts = trace(mask)
        assert sum(signed_area(ring) for part in parts for ring in (part.shell, *part.holes)) == mask.sum()
        np.testing.assert_array_equal(coco_fill([without_holes(part) for part in parts], mask.shape), mask)
        np.testing.assert_array_equal(coco_fill([one_polygon(parts)], mask.shape), mask)
        assert shapely.MultiPolygon([shapely.Polygon(part.shell, part.holes) for part in parts]).is_valid


def test_known_masks_with_an_independent_rasteriser(
    proposals: Proposals, masks: np.ndarray, fill: Callable[..., np.ndarray]
) -> None:
    for index, mask in enumerate(masks):
        parts = outline(proposals, index)
        np.testing.assert_array_equal(fill([r for part in parts for r in (part.shell, *part.holes)]), mask)
        np.testing.assert_array_equal(fill([one_polygon(parts)]), mask)


def test_large_masks_with_thin_holes() -> None:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:240, :320]
    for _ in range(10):
        mask = np.hypot(x - 160, y - 120) < rng.integers(60, 110)
        for _ in range(6):
            a, b = rng.random(2) * 2 - 1
            across = abs(a * (x - 160) + b * (y - 120) - 20 * rng.normal()) / np.hypot(a, b)
            mask &= ~((across < rng.choice([0.6, 1, 4])) & (np.hypot(x - 160, y - 120) < 50))
        np.testing.assert_array_equal(coco_fill([without_holes(part) for part in trace(mask)], mask.shape), mask)


@pytest.mark.parametrize("tolerance", [0.5, 1.0, 2.0])
def test_simplified_outlines_stay_near(tolerance: float) -> None:
    y, x = np.mgrid[:200, :260]
    mask = (np.hypot((x - 130) / 1.5, y - 100) < 80) & (np.hypot(x - 120, y - 90) > 30)
    (exact,) = trace(mask)
    part = simplify(exact, tolerance)
    for old, new in [(exact.shell, part.shell), (exact.holes[0], part.holes[0])]:
        assert len(new) < len(old) / (1 if tolerance < 1 else 2)  # a stair of one pixel is 0.7 pixels deep
        a, b = new, np.roll(new, -1, axis=0)
        along = b - a
        t = ((old[:, None] - a) * along).sum(axis=2) / (along**2).sum(axis=1)
        distance = np.linalg.norm(old[:, None] - a - t.clip(0, 1)[..., None] * along, axis=2).min(axis=1)
        assert distance.max() <= tolerance + 1e-9
    drawn = coco_fill([without_holes(part)], mask.shape)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 1 - 0.015 * tolerance - 0.005


def test_simplified_small_masks_do_not_vanish(proposals: Proposals, masks: np.ndarray) -> None:
    for index in range(len(proposals)):
        for part in outline(proposals, index, 50.0):
            assert len(part.shell) >= 3 and signed_area(part.shell) != 0
