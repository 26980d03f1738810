"""Soft suppression against the same rule on full-size masks; what it does to a list with copies."""

import numpy as np
import pytest

from sharpmask.proposals.cleaning import Overlaps
from sharpmask.proposals.ranking import overlapping_pairs, soft_order
from sharpmask.proposals.result import Proposals


def blobs(count: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        cx, cy, a, b = rng.random(4) * (80, 60, 25, 25) + (0, 0, 1, 1)
        mask |= (abs(x - cx) < a) & (abs(y - cy) < b)
        mask[int(cy), int(cx)] = True
    return masks


def iou_matrix(masks: np.ndarray) -> np.ndarray:
    flat = masks.reshape(len(masks), -1).astype(np.int64)
    both = flat @ flat.T
    areas = flat.sum(axis=1)
    return both / (areas[:, None] + areas[None] - both)


@pytest.mark.parametrize("least", [0.1, 0.5])
def test_pairs_are_those_of_the_full_matrix(least: float) -> None:
    found = Proposals.from_masks(blobs(150))
    pairs = overlapping_pairs(len(found), Overlaps(found.rles, found.boxes, found.areas).ious, least)
    expected = iou_matrix(found.masks)
    np.fill_diagonal(expected, 0)
    dense = np.zeros_like(expected)
    dense[np.repeat(np.arange(150), np.diff(pairs.begins)), pairs.partners] = pairs.ious
    np.testing.assert_allclose(dense, np.where(expected >= least, expected, 0), rtol=1e-12)


def test_soft_order_by_brute_force() -> None:
    found = Proposals.from_masks(blobs(150), np.linspace(1, 0.1, 150))
    pairs = overlapping_pairs(150, Overlaps(found.rles, found.boxes, found.areas).ious, 0.2)
    order, lowered = soft_order(found.scores, pairs, lambda iou: np.exp(-(iou**2) / 0.5))
    ious, scores, left, expected = iou_matrix(found.masks), found.scores.astype(float), list(range(150)), []
    while left:
        best = max(left, key=lambda place: scores[place])
        expected.append(best)
        left.remove(best)
        for other in left:
            if ious[best, other] >= 0.2:
                scores[other] *= np.exp(-(ious[best, other] ** 2) / 0.5)
    assert order.tolist() == expected
    np.testing.assert_allclose(lowered, scores[expected], rtol=1e-9)
    assert (np.diff(lowered) <= 0).all()


def test_no_masks() -> None:
    pairs = overlapping_pairs(0, lambda first, second, least: np.zeros((len(first), len(second))), 0.5)
    order, lowered = soft_order(np.zeros(0), pairs, lambda iou: iou)
    assert order.size == lowered.size == 0
