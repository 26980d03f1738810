"""What masks have in each bin of columns and rows, and that it bounds what two masks share."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sharpmask.proposals.overlaps import Overlaps
from sharpmask.proposals.profiles import Profiles
from sharpmask.proposals.rle import Rle, all_runs_of_ones, runs_of_ones


def encoded(masks: np.ndarray) -> list[Rle]:
    return list(coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))))


def some_masks(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Ellipses in every place, and noise, an empty mask, a full one and one of a single pixel."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    masks = [np.zeros((height, width), bool), np.ones((height, width), bool), rng.random((height, width)) < 0.3]
    masks.append((y == height - 1) & (x == width - 1))
    for _ in range(20):
        a, b = rng.uniform(1, height), rng.uniform(1, width)
        masks.append(((y - rng.uniform(0, height)) / a) ** 2 + ((x - rng.uniform(0, width)) / b) ** 2 < 0.3)
    return np.array(masks)


@pytest.mark.parametrize("size", [(64, 64), (75, 130), (1, 7), (300, 5)])
def test_profiles_count_pixels(size: tuple[int, int]) -> None:
    masks = some_masks(*size)
    found = Profiles(encoded(masks)).pixels
    for axis, side in ((0, size[1]), (1, size[0])):
        lines = masks.sum(axis=1 + axis)
        width = -(-side // 64)
        padded = np.pad(lines, ((0, 0), (0, 64 * width - side)))
        assert np.array_equal(found[:, axis], padded.reshape(len(masks), 64, width).sum(axis=2))


def test_no_two_masks_share_more_than_told() -> None:
    masks = some_masks(75, 130)
    first, second = (part.ravel() for part in np.indices((len(masks), len(masks))))
    most = Profiles(encoded(masks)).most(first, second)
    shared = (masks[first] & masks[second]).sum(axis=(1, 2))
    assert (most >= shared).all() and (most == shared)[first == second].all()
    assert (most < np.minimum(masks[first].sum(axis=(1, 2)), masks[second].sum(axis=(1, 2)))).any()


def test_runs_of_many_masks_are_those_of_each() -> None:
    rles = encoded(some_masks(40, 30))
    rles[3] = {**rles[3], "counts": rles[3]["counts"].decode()}
    starts, ends = all_runs_of_ones(rles)
    each = [runs_of_ones(rle) for rle in rles]
    for found, place in ((starts, 0), (ends, 1)):
        assert np.array_equal(found, np.concatenate([runs[place] + n * 1200 for n, runs in enumerate(each)]))
    assert all(part.size == 0 for part in all_runs_of_ones([]))


@pytest.mark.parametrize("least", [0.01, 0.5, 1.0])
def test_overlaps_are_exact_where_they_count(least: float) -> None:
    masks = some_masks(75, 130, seed=1)
    rles = encoded(masks)
    boxes = coco_mask.toBbox(rles)
    boxes[:, 2:] += boxes[:, :2]
    everyone = np.arange(len(masks))
    overlaps = Overlaps(rles, boxes, coco_mask.area(rles))
    found, expected = overlaps.ious(everyone, everyone, least), coco_mask.iou(rles, rles, [0] * len(rles))
    assert np.array_equal(np.where(found >= least, found, 0), np.where(expected >= least, expected, 0))
    assert np.array_equal(overlaps.doubles(least)(everyone, everyone), expected > least)
