"""The result record: slicing, limits, suppression, export."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sharpmask.errors import ConfigError
from sharpmask.proposals.result import Proposals


def random_masks(count: int, seed: int = 0, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    centres, radii = rng.integers(0, size[1], (count, 2)), rng.integers(4, 30, (count, 2))
    distance = ((y - centres[:, :1, None]) / radii[:, :1, None]) ** 2 + (
        (x - centres[:, 1:, None]) / radii[:, 1:, None]
    ) ** 2
    masks = distance < 1
    masks[:, 10, 10] = True  # none is empty
    return masks


@pytest.fixture
def proposals() -> Proposals:
    return Proposals.from_masks(random_masks(20), np.linspace(0.05, 1, 20))


def test_from_masks_orders_by_score(proposals: Proposals) -> None:
    masks = random_masks(20)[::-1]
    assert (np.diff(proposals.scores) <= 0).all()
    np.testing.assert_array_equal(proposals.masks, masks)
    np.testing.assert_array_equal(proposals.areas, masks.sum(axis=(1, 2)))
    for mask, (x0, y0, x1, y1) in zip(masks, proposals.boxes.astype(int), strict=True):
        assert mask[y0:y1, x0:x1].sum() == mask.sum()
        assert mask[y0, :].any() and mask[y1 - 1, :].any() and mask[:, x0].any() and mask[:, x1 - 1].any()
    with pytest.raises(ValueError, match="as many scores"):
        Proposals.from_masks(masks, [1.0])


def test_indexing(proposals: Proposals) -> None:
    masks = proposals.masks
    for key, expected in [
        (slice(2, 9, 3), masks[2:9:3]),
        ([5, 0, 5], masks[[5, 0, 5]]),
        (np.array([-1]), masks[-1:]),
        (3, masks[3:4]),
        (-2, masks[-2:-1]),
        (proposals.areas > 500, masks[proposals.areas > 500]),
        ([], masks[:0]),
        (slice(0, 0), masks[:0]),
    ]:
        part = proposals[key]
        assert isinstance(part, Proposals) and len(part) == len(expected) == len(part.scores) == len(part.windows)
        np.testing.assert_array_equal(part.masks, expected)
    assert len(list(proposals)) == 20
    with pytest.raises(IndexError):
        proposals[20]


def test_filter_limits_are_inclusive(proposals: Proposals) -> None:
    area = int(np.sort(proposals.areas)[10])
    assert (proposals.filter(min_area=area).areas >= area).all()
    assert len(proposals.filter(min_area=area)) + len(proposals.filter(max_area=area - 1)) == 20
    assert area in proposals.filter(max_area=area).areas
    assert len(proposals.filter(min_score=float(proposals.scores[7]))) == 8
    assert len(proposals.filter()) == 20
    assert len(proposals.filter(min_score=2)) == 0


@pytest.mark.parametrize("iou", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_nms_equals_brute_force(iou: float) -> None:
    """More than 256 masks: some versions of pycocotools lose count beyond that."""
    proposals = Proposals.from_masks(random_masks(330, seed=1), np.random.default_rng(2).random(330))
    flat = proposals.masks.reshape(330, -1).astype(np.float64)
    inter = flat @ flat.T
    overlap = inter / (flat.sum(1)[:, None] + flat.sum(1) - inter)
    kept: list[int] = []
    for i in range(330):
        if all(overlap[i, j] <= iou for j in kept):
            kept.append(i)
    assert proposals.nms_ranks(iou) == kept
    np.testing.assert_array_equal(proposals.nms(iou).masks, proposals.masks[kept])


def test_nms_edge_cases(proposals: Proposals) -> None:
    twice = Proposals.from_masks(np.concatenate([random_masks(3)] * 2))
    assert twice.nms(0.99).nms_ranks(0.99) == list(range(len(twice.nms(0.99)))) and len(twice.nms(0.99)) <= 3
    assert len(proposals[:0].nms(0.5)) == 0
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError):
            proposals.nms(bad)


def test_to_coco(proposals: Proposals) -> None:
    entries = json.loads(json.dumps(proposals.to_coco(7)))
    assert [set(entry) for entry in entries] == [{"image_id", "category_id", "segmentation", "bbox", "score"}] * 20
    for entry, mask, score in zip(entries, proposals.masks, proposals.scores, strict=True):
        assert (entry["image_id"], entry["category_id"]) == (7, 1)
        assert np.float32(entry["score"]) == score
        assert entry["bbox"] == coco_mask.toBbox(entry["segmentation"]).tolist()
        np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]), mask)


def test_no_proposals() -> None:
    none = Proposals.from_masks(np.zeros((0, 5, 6), bool))
    assert none.masks.shape == (0, 5, 6) and none.to_coco(1) == [] and none.boxes.shape == (0, 4)
    assert len(none.filter(min_area=1)) == 0
    assert "6x5" in repr(none)
