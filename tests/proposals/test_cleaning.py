"""Cleaning against the same rules written with full-size masks."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from sharpmask.errors import ConfigError, MissingExtraError
from sharpmask.proposals.cleaning import Cleaning
from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.result import Proposals


def blobs(count: int = 150, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    masks = np.zeros((count, *size), bool)
    for mask in masks:
        cx, cy, a, b = rng.random(4) * (80, 60, 25, 25) + (0, 0, 1, 1)
        mask |= (abs(x - cx) < a) & (abs(y - cy) < b) & (rng.random(size) < rng.choice([1, 0.9]))
        mask[int(cy), int(cx)] = True
    return masks


@pytest.fixture
def proposals() -> Proposals:
    return Proposals.from_masks(blobs(), np.linspace(1, 0.1, 150))


@pytest.mark.parametrize("drop", ["parts", "wholes", "both"])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 1.0])
def test_containment_by_brute_force(proposals: Proposals, drop: str, threshold: float) -> None:
    masks, kept = proposals.masks, []
    for i, mask in enumerate(masks):
        for j in kept:
            smaller = min(mask.sum(), masks[j].sum())
            nested = (mask & masks[j]).sum() > threshold * smaller
            part, whole = mask.sum() <= masks[j].sum(), mask.sum() >= masks[j].sum()
            if nested and (drop == "both" or (part if drop == "parts" else whole)):
                break
        else:
            kept.append(i)
    found = proposals.containment_nms(drop, threshold)
    np.testing.assert_array_equal(found.scores, proposals.scores[kept])
    assert len(kept) < 150 or threshold == 1


def test_a_part_and_its_whole() -> None:
    whole, part = np.zeros((2, 20, 20), bool)
    whole[2:18, 2:18], part[5:9, 5:9] = True, True
    whole_first = Proposals.from_masks(np.array([whole, part]), [0.9, 0.8])
    part_first = Proposals.from_masks(np.array([whole, part]), [0.8, 0.9])
    assert [len(p.containment_nms("parts")) for p in (whole_first, part_first)] == [1, 2]
    assert [len(p.containment_nms("wholes")) for p in (whole_first, part_first)] == [2, 1]
    assert [len(p.containment_nms("both")) for p in (whole_first, part_first)] == [1, 1]
    for arguments in (("pieces",), ("parts", 1.5)):
        with pytest.raises(ConfigError, match="containment"):
            part_first.containment_nms(*arguments)


def test_nms_of_many_masks_by_brute_force() -> None:
    masks = np.repeat(blobs(), 3, axis=0)  # more kept and more dropped than one block
    proposals = Proposals.from_masks(masks)
    kept: list[int] = []
    for i, mask in enumerate(masks):
        if all((mask & masks[j]).sum() <= 0.6 * (mask | masks[j]).sum() for j in kept):
            kept.append(i)
    assert proposals.nms_ranks(0.6) == kept


def test_border_share_by_counting_sides(proposals: Proposals) -> None:
    corner = np.zeros((1, 60, 80), bool)
    corner[0, 0, 0] = True
    full = np.ones((1, 60, 80), bool)
    assert Proposals.from_masks(np.concatenate([corner, full])).border_shares.tolist() == [0.5, 1.0]
    expected = []
    for mask in proposals.masks:
        padded = np.pad(mask, 1)
        sides = sum((np.diff(padded.astype(int), axis=axis) != 0).sum() for axis in (0, 1))
        expected.append((mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()) / sides)
    np.testing.assert_allclose(proposals.border_shares, expected)
    kept = proposals.filter(max_border=0.1)
    assert len(kept) == (np.array(expected) <= 0.1).sum() < 150


def test_aspect() -> None:
    masks = np.zeros((2, 20, 40), bool)
    masks[0, 3:5, 2:32] = masks[1, 3:13, 2:8] = True
    proposals = Proposals.from_masks(masks)
    np.testing.assert_allclose(proposals.aspects, [15, 10 / 6])
    assert len(proposals.filter(max_aspect=2)) == 1 and len(proposals[:0].aspects) == 0


def test_partition_gives_each_pixel_its_best_mask(proposals: Proposals) -> None:
    masks = proposals.masks
    labels = np.where(masks.any(axis=0), masks.argmax(axis=0) + 1, 0)
    np.testing.assert_array_equal(proposals.label_map(), labels)
    cut = proposals.partition()
    assert cut.masks.sum(axis=0).max() == 1 and len(cut) < len(proposals)
    ranks = np.unique(labels[labels > 0])
    np.testing.assert_array_equal(cut.masks, [labels == rank for rank in ranks])
    np.testing.assert_array_equal(cut.scores, proposals.scores[ranks - 1])
    rebuilt = Proposals.from_masks(cut.masks, cut.scores)
    np.testing.assert_array_equal(cut.boxes, rebuilt.boxes)
    np.testing.assert_array_equal(cut.areas, rebuilt.areas)
    assert cut.rles == rebuilt.rles
    assert len(proposals[:0].partition()) == 0


def test_all_steps_in_order(proposals: Proposals) -> None:
    settings = Cleaning(min_area=20, max_aspect=4, nms=0.7, containment="parts", partition=True, count=5)
    expected = proposals.filter(min_area=20, max_aspect=4).nms(0.7).containment_nms("parts").partition()
    expected = expected.filter(min_area=20)[:5]
    assert settings.apply(proposals).rles == expected.rles and len(expected) == 5
    assert Cleaning().apply(proposals).rles == proposals.rles


@pytest.mark.parametrize(
    "wrong",
    [
        {"nms": 2},
        {"max_border": -0.1},
        {"max_aspect": 0.5},
        {"min_area": 9, "max_area": 8},
        {"containment": "all"},
        {"count": 0},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"|".join(wrong)):
        Cleaning(**wrong)


def test_stability_equals_the_iou_of_two_thresholds(
    brightness_network: Any, bright_photo: tuple[np.ndarray, np.ndarray]
) -> None:
    photo = np.asarray(Image.fromarray(bright_photo[0]).filter(ImageFilter.GaussianBlur(8)))  # edges of many logits

    def propose(shift: float, **options: Any) -> Proposals:
        threshold = float(torch.sigmoid(torch.tensor(-1.0 + shift)))
        proposer = Proposer(
            brightness_network(160),
            top=40,
            scales=[0],  # with 160 pixels a side the mask's pixels are the image's
            threshold=threshold,
            ranking="paper",
            device="cpu",
            **options,
        )
        return proposer.propose(photo)

    found, high, low = propose(0, stability_offset=0.5), propose(0.5), propose(-0.5)
    assert found.stability is not None and high.stability is None

    def by_window(proposals: Proposals) -> dict[tuple[float, ...], np.ndarray]:
        return {tuple(w): m for w, m in zip(proposals.windows.tolist(), proposals.masks, strict=True)}

    lower, higher = by_window(low), by_window(high)
    nothing = np.zeros(found.image_size, bool)
    expected = [
        higher.get(w, nothing).sum() / max(1, lower.get(w, nothing).sum()) for w in map(tuple, found.windows.tolist())
    ]
    np.testing.assert_allclose(found.stability, expected, atol=1e-6)
    assert 0 < min(expected) < max(expected) <= 1
    middle = float(np.median(expected))
    kept = found.filter(min_stability=middle)
    assert 0 < len(kept) < len(found) and kept.stability is not None and kept.stability.min() >= middle
    with pytest.raises(ConfigError, match="stability_offset"):
        high.filter(min_stability=0.5)
    with pytest.raises(ConfigError, match="greater than 0"):
        propose(0, stability_offset=0)


def test_supervision(proposals: Proposals, monkeypatch: pytest.MonkeyPatch) -> None:
    supervision = pytest.importorskip("supervision")
    detections = proposals[:9].to_supervision()
    assert isinstance(detections, supervision.Detections) and len(detections) == 9
    np.testing.assert_array_equal(detections.mask, proposals[:9].masks)
    np.testing.assert_array_equal(detections.confidence, proposals.scores[:9])
    np.testing.assert_array_equal(detections.xyxy, proposals.boxes[:9])
    assert detections[detections.confidence > 0.97].data["rank"].tolist() == [1, 2, 3, 4, 5]
    assert len(proposals[:0].to_supervision()) == 0
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MissingExtraError, match=r"sharpmask\[supervision\]"):
        proposals.to_supervision()
