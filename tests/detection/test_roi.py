"""RoIAlign and suppression against values computed by hand, and against torchvision where it works."""

import pytest
import torch

from sharpmask.detection import roi
from sharpmask.detection.boxes import clip_boxes, decode_boxes, encode_boxes, grow_boxes
from sharpmask.detection.roi import box_iou, nms, nms_by_class, roi_align


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions of this package, whether torchvision is there or not."""
    monkeypatch.setattr(roi, "_ops", None)


def ramp(height: int, width: int) -> torch.Tensor:
    """(1, 2, H, W): x and y of each cell's centre, counted in cells from the map's edge."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])[None]


def test_a_linear_map_is_read_at_the_bins_centres(own: None) -> None:
    """On a ramp every mean is the value at the bin's centre: any shift by half a cell would show."""
    boxes = torch.tensor([[16.0, 32.0, 128.0, 144.0], [40.0, 24.0, 61.0, 73.0]])
    pooled = roi_align(ramp(12, 20), boxes, torch.zeros(2, dtype=torch.int64), scale=1 / 16)
    for box, found in zip(boxes / 16, pooled, strict=True):
        places = (torch.arange(7) + 0.5) / 7
        torch.testing.assert_close(found[0], (box[0] + places * (box[2] - box[0])).expand(7, 7))
        torch.testing.assert_close(found[1], (box[1] + places * (box[3] - box[1]))[:, None].expand(7, 7))


def test_by_hand(own: None) -> None:
    """One bin over a 2 x 2 map with the values 0 1 2 3: the samples lie at the cells' centres, so it is their mean."""
    feature = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    index = torch.zeros(1, dtype=torch.int64)
    assert roi_align(feature, torch.tensor([[0.0, 0.0, 2.0, 2.0]]), index, scale=1.0, side=1).item() == 1.5
    # Of the left cell alone the samples lie at x = .25 (the edge's value) and .75 (a quarter of the way to the next).
    found = roi_align(feature, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), index, scale=1.0, side=1).item()
    assert found == pytest.approx((0 + 0.25 + 0.5 + 0.75) / 4)


def test_boxes_of_several_images_and_unequal_scales(own: None) -> None:
    features = torch.randn(3, 4, 10, 12)
    boxes = torch.tensor([[0.0, 0.0, 40.0, 30.0], [10.0, 5.0, 90.0, 70.0], [3.0, 3.0, 20.0, 60.0]])
    index = torch.tensor([2, 0, 2])
    together = roi_align(features, boxes, index, scale=torch.tensor([0.1, 0.125]), side=3)
    for place in range(3):
        alone = roi_align(
            features[index[place]][None],
            boxes[place : place + 1] * torch.tensor([0.1, 0.125, 0.1, 0.125]),
            torch.zeros(1, dtype=torch.int64),
            scale=1.0,
            side=3,
        )
        torch.testing.assert_close(together[place], alone[0])


def test_half_precision_leaves_boxes_where_they_are(own: None) -> None:
    """The map's own values are rounded, by one part in 256; places are not, which bf16 would round by half a cell."""
    features, box = ramp(64, 64), torch.tensor([[801.0, 802.0, 845.0, 855.0]])
    index = torch.zeros(1, dtype=torch.int64)
    exact = roi_align(features, box, index, scale=1 / 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = roi_align(features.bfloat16(), box, index, scale=1 / 16)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=0.0, rtol=2 / 256)


def test_gradients_reach_the_features(own: None) -> None:
    features = torch.randn(2, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[1.0, 1.0, 4.0, 5.0]], dtype=torch.float64)
    index = torch.tensor([1])
    assert torch.autograd.gradcheck(lambda f: roi_align(f, boxes, index, scale=1.0, side=2), (features,))


def test_no_boxes(own: None) -> None:
    empty, index = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    assert roi_align(torch.zeros(1, 3, 4, 4), empty, index, scale=1.0).shape == (0, 3, 7, 7)
    assert nms(empty, torch.zeros(0), 0.5).tolist() == nms_by_class(empty, torch.zeros(0), index, 0.5).tolist() == []


def test_iou_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 15.0, 15.0], [2.0, 2.0, 2.0, 2.0]])
    expected = torch.tensor([[1.0, 25 / 175, 0.0], [25 / 175, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(box_iou(boxes, boxes), expected)


def test_suppression_by_hand(own: None) -> None:
    """The second box overlaps the first by .6, the third the second by .6 but the first by .33."""
    boxes = torch.tensor([[0.0, 0, 8, 1], [2.0, 0, 10, 1], [4.0, 0, 12, 1], [50.0, 0, 58, 1]])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.95])
    assert nms(boxes, scores, 0.5).tolist() == [3, 0, 2]
    assert nms(boxes, scores, 0.6).tolist() == [3, 0, 1, 2]  # an IoU that equals the limit is allowed
    assert nms(boxes, scores, 0.3).tolist() == [3, 0]
    assert nms(boxes, torch.ones(4), 0.5).tolist() == [0, 2, 3]


def test_suppression_keeps_classes_apart(own: None) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10]] * 4)
    kept = nms_by_class(boxes, torch.tensor([0.5, 0.9, 0.9, 0.4]), torch.tensor([7, 7, 2, 2]), 0.3)
    assert kept.tolist() == [1, 2]


def test_suppression_follows_its_definition(own: None) -> None:
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(200, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + 5 + 30 * torch.rand(200, 2, generator=generator)], dim=1)
    scores = torch.rand(200, generator=generator)
    kept = nms(boxes, scores, 0.4)
    assert (scores[kept].diff() <= 0).all()
    overlaps = box_iou(boxes, boxes[kept])
    assert (overlaps[kept] > 0.4).sum() == len(kept)  # each with itself only
    for place in set(range(200)) - set(kept.tolist()):
        assert ((overlaps[place] > 0.4) & (scores[kept] >= scores[place])).any()


@pytest.mark.skipif(not roi.has_torchvision(), reason="torchvision is not installed, or does not fit this torch")
def test_equal_to_torchvision() -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2, 5, 20, 30, generator=generator)
    corners = torch.rand(60, 2, generator=generator) * 400 - 40
    boxes = torch.cat([corners, corners + 200 * torch.rand(60, 2, generator=generator)], dim=1)
    index = torch.arange(60) % 2
    theirs = roi_align(features, boxes, index, scale=1 / 16)
    torch.testing.assert_close(roi._roi_align(features, boxes / 16, index, 7), theirs, rtol=1e-4, atol=1e-5)
    scores = torch.rand(60, generator=generator)
    order = scores.argsort(descending=True)
    assert nms(boxes, scores, 0.3).tolist() == order[roi._nms_sorted(boxes[order], 0.3)].tolist()


def test_box_regression_and_back() -> None:
    boxes = torch.tensor([[10.0, 20.0, 50.0, 40.0], [0.0, 0.0, 8.0, 16.0]])
    targets = torch.tensor([[20.0, 20.0, 60.0, 60.0], [1.0, 2.0, 9.0, 10.0]])
    deltas = encode_boxes(boxes, targets)
    expected = torch.tensor([[0.25, 0.5, 0.0, 0.6931472], [0.125, -0.125, 0.0, -0.6931472]])
    torch.testing.assert_close(deltas, expected)
    torch.testing.assert_close(decode_boxes(boxes, deltas), targets)
    huge = decode_boxes(boxes, torch.full((2, 4), 1000.0))
    assert torch.isfinite(huge).all()


def test_growing_and_clipping() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    assert grow_boxes(boxes, 2.0).tolist() == [[0.0, 10.0, 40.0, 50.0]]
    assert clip_boxes(torch.tensor([[-3.0, 5.0, 700.0, 500.0]]), (480, 640)).tolist() == [[0.0, 5.0, 640.0, 480.0]]
