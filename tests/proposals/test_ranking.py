"""Soft suppression against the same rule on full-size masks; what it does to a list with copies."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sharpmask.errors import ConfigError
from sharpmask.proposals.overlaps import Overlaps
from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.ranking import overlapping_pairs, soft_order, with_stability
from sharpmask.proposals.rasters import ArrayRaster
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.tiling import propose_raster


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


def test_soft_nms_puts_copies_behind_other_objects() -> None:
    masks = np.zeros((4, 40, 60), bool)
    masks[0, 5:25, 5:25] = masks[1, 5:25, 5:24] = masks[2, 5:25, 5:20] = True  # one object: IoU .95 and .75 with it
    masks[3, 5:25, 35:55] = True  # another one
    found = Proposals.from_masks(masks, [0.9, 0.8, 0.7, 0.3])
    soft = found.soft_nms(0.5)
    assert [soft.rles[i] for i in range(4)] == [found.rles[i] for i in (0, 3, 2, 1)]
    np.testing.assert_allclose(soft.scores, [0.9, 0.3, 0.7 * 0.25, 0.8 * 0.05 * (1 - 15 / 19)], rtol=1e-5)
    assert (soft.areas == soft.masks.sum(axis=(1, 2))).all()
    # Above the overlap of a pair nothing happens to it.
    assert found.soft_nms(0.96).rles == found.rles
    assert found.ranked("paper") is found and found.ranked("soft").rles == found.soft_nms().rles
    assert found.ranked("soft").scores.tolist() == found.scores.tolist()  # dealt out anew


def test_stability_raises_sharp_masks() -> None:
    odds = with_stability(np.array([0.5, 0.9, 0.0, 1.0, 0.3]), np.array([0.5, 1.0, 0.7, 0.7, 0.0]), 2.0)
    np.testing.assert_allclose(odds[:4], [0.2, 0.9, 0, 1], atol=1e-12)  # odds 1 x 1/4, 9 x 1
    assert 0 < odds[4] < 1e-4
    masks = np.zeros((2, 9, 9), bool)
    masks[0, :3], masks[1, 5:] = True, True
    found = replace(Proposals.from_masks(masks, [0.9, 0.8]), stability=np.array([0.4, 0.9], np.float32))
    assert found.soft_nms(stability_weight=0).rles == found.rles
    assert found.soft_nms(stability_weight=4).rles == found.rles[::-1]
    assert found.soft_nms(stability_weight=4).stability.tolist() == [np.float32(0.9), np.float32(0.4)]
    with pytest.raises(ConfigError, match="stability weight"):
        found.soft_nms(stability_weight=-1)


@pytest.mark.parametrize("above", [0.0, -1.0, 1.5])
def test_soft_nms_out_of_range(above: float) -> None:
    with pytest.raises(ConfigError, match="soft NMS above"):
        Proposals.from_masks(blobs(2)).soft_nms(above)


def test_the_ranking_of_a_proposer(brightness_network: Any, bright_photo: tuple[np.ndarray, np.ndarray]) -> None:
    photo, _ = bright_photo
    options = {"top": 60, "threshold": 0.5, "device": "cpu"}
    paper = Proposer(brightness_network(56), ranking="paper", **options).propose(photo)
    soft = Proposer(brightness_network(56), ranking="soft", **options).propose(photo)
    measured = Proposer(brightness_network(56), ranking="paper", stability_offset=1, **options).propose(photo)
    assert paper.rles == measured.rles and soft.rles == measured.soft_nms().rles != paper.rles
    assert soft.rles != paper.soft_nms().rles  # the stability is heeded
    assert sorted(map(str, soft.rles)) == sorted(map(str, paper.rles))
    np.testing.assert_array_equal(soft.scores, paper.scores)
    # Suppression comes after the ranking.
    fewer = Proposer(brightness_network(56), ranking="soft", nms=0.5, **options).propose(photo)
    assert fewer.rles == soft.nms(0.5).rles
    tiled = propose_raster(Proposer(brightness_network(56), ranking="soft", **options), ArrayRaster(photo))
    measured = Proposer(brightness_network(56), ranking="paper", stability_offset=1, **options)
    assert tiled.rles == propose_raster(measured, ArrayRaster(photo)).soft_nms().rles
    with pytest.raises(ConfigError, match="ranking 'best'"):
        Proposer(brightness_network(), ranking="best")
