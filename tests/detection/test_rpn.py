"""The region proposal network: anchors, what they are trained as, and that it finds objects after a short training."""

import json
from pathlib import Path

import pytest
import torch
from detector_runs import detector_run, write_shapes
from detectors import tiny

from sharpmask.detection.roi import box_iou
from sharpmask.detection.rpn import (
    RATIOS,
    SIZES,
    RegionProposalNetwork,
    assign_anchors,
    draw_anchors,
    load_rpn,
    train_rpn,
)
from sharpmask.detection.sampling import ImageTruth
from sharpmask.errors import ModelError
from sharpmask.images import read_image


def truth(boxes: list[list[float]], *, exhaustive: bool = True, crowds: list[list[float]] | None = None) -> ImageTruth:
    return ImageTruth(
        torch.tensor(boxes).reshape(-1, 4),
        torch.ones(len(boxes), dtype=torch.int64),
        torch.tensor(crowds or []).reshape(-1, 4),
        exhaustive,
        False,
        torch.ones(2, dtype=torch.bool),
    )


def test_anchors_are_centred_on_the_cells_in_pixels_of_the_image() -> None:
    network = RegionProposalNetwork(tiny("fast-rcnn-lite0", short_side=96, long_side=96), hidden=8)
    features, scale = network.features(torch.rand(3, 192, 192))  # rescaled by a half
    anchors = network.anchors(features, scale).reshape(6, 6, -1, 4)
    assert anchors.shape[2] == len(SIZES) * len(RATIOS)
    centres = (anchors[..., :2] + anchors[..., 2:]) / 2
    torch.testing.assert_close(centres[2, 4], torch.tensor([4.5 * 32, 2.5 * 32]).expand(15, 2))
    sides = anchors[0, 0, :, 2:] - anchors[0, 0, :, :2]
    torch.testing.assert_close(sides.prod(dim=1), torch.tensor([(2 * s) ** 2 for s in SIZES for _ in RATIOS]))
    torch.testing.assert_close((sides[:, 1] / sides[:, 0])[:3], torch.tensor(RATIOS))
    logits, deltas = network(features)
    assert logits.shape == (6 * 6 * 15,) and deltas.shape == (6 * 6 * 15, 4)


def test_outputs_stand_in_the_order_of_the_anchors() -> None:
    """A bias of one anchor shape shows at every cell in its place."""
    network = RegionProposalNetwork(tiny("fast-rcnn-lite0"), hidden=8)
    with torch.no_grad():
        network.objectness.weight.zero_()
        network.regressor.weight.zero_()
        network.objectness.bias[4] = 3.0
        network.regressor.bias[4 * 4 + 2] = 0.5
    logits, deltas = network(network.features(torch.rand(3, 96, 128))[0])
    assert (logits.reshape(-1, 15)[:, 4] == 3).all() and logits.sum() == 3 * len(logits) / 15
    assert (deltas.reshape(-1, 15, 4)[:, 4, 2] == 0.5).all() and deltas.sum() == 0.5 * len(logits) / 15


ANCHORS = torch.tensor(
    [[0.0, 0, 40, 40], [0.0, 0, 40, 55], [10.0, 0, 90, 80], [150.0, 150, 190, 190], [20.0, 0, 60, 40]]
)


def test_what_anchors_are() -> None:
    labels, targets = assign_anchors(ANCHORS, truth([[0.0, 0, 40, 40]]))
    assert labels.tolist() == [1, 1, 0, 0, -1]  # overlaps 1, .73, .14, 0, .33
    assert targets[0].tolist() == [0, 0, 40, 40]
    labels, _ = assign_anchors(ANCHORS, truth([[0.0, 0, 40, 40]], exhaustive=False))
    assert labels.tolist() == [1, 1, 0, -1, -1]
    labels, _ = assign_anchors(ANCHORS, truth([[0.0, 0, 40, 40]], crowds=[[140.0, 140, 200, 200]]))
    assert labels.tolist() == [1, 1, 0, -1, -1]


def test_the_best_anchor_of_an_object_is_taken_however_bad() -> None:
    labels, _ = assign_anchors(ANCHORS, truth([[100.0, 100, 180, 180], [0.0, 0, 40, 40]]))
    assert labels[3] == 1 and labels[0] == 1


def test_images_without_objects() -> None:
    assert assign_anchors(ANCHORS, truth([]))[0].tolist() == [0] * 5
    assert assign_anchors(ANCHORS, truth([], exhaustive=False))[0].tolist() == [-1] * 5


def test_at_most_half_are_objects() -> None:
    labels = torch.tensor([1] * 300 + [0] * 900 + [-1] * 100)
    drawn = labels[draw_anchors(labels)]
    assert (drawn == 1).sum() == 128 and (drawn == 0).sum() == 128
    drawn = labels[280:][draw_anchors(labels[280:])]
    assert (drawn == 1).sum() == 20 and (drawn == 0).sum() == 236


def test_it_finds_shapes_it_has_not_seen(tmp_path: Path) -> None:
    for part, seed in (("train", 1), ("val", 2)):
        (tmp_path / part).mkdir()
        write_shapes(tmp_path / part, count=6, seed=seed)
    config = detector_run(
        tmp_path / "train", tmp_path / "run", steps=40, learning_rate=4e-3, short_side=192, checkpoint_every=40
    )
    network = load_rpn(train_rpn(config))
    content = json.loads((tmp_path / "val" / "truth.json").read_text())
    for image in content["images"]:
        boxes, scores = network.propose(read_image(tmp_path / "val" / image["file_name"]), top=20)
        assert len(boxes) <= 20 and (scores[1:] <= scores[:-1]).all()
        own = [a["bbox"] for a in content["annotations"] if a["image_id"] == image["id"]]
        objects = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in own])
        assert (box_iou(torch.from_numpy(boxes), objects).amax(dim=0) > 0.6).all()


def test_other_files_are_no_rpn(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights file"):
        load_rpn(tmp_path / "a.safetensors")
