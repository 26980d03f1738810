"""What a detector is trained on: which photos in which order, which boxes, in which sizes, and damaged photos."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detector_runs import detector_run

from sharpmask.data.coco import read_coco
from sharpmask.data.photos import PhotoCache
from sharpmask.detection.classes import choose_classes
from sharpmask.detection.examples import BoxExamples, jittered, repeats
from sharpmask.detection.proposal_boxes import compute_proposals, read_proposals
from sharpmask.detection.roi import box_iou
from sharpmask.detection.sampling import image_truths
from sharpmask.detection.train import DetectorTask, train_detector
from sharpmask.detection.validation import validation_part
from sharpmask.errors import DataError
from sharpmask.training.distributed import World


def test_images_that_are_not_exhaustive_give_no_background_from_nowhere(two_kinds: Path, tmp_path: Path) -> None:
    content = json.loads((two_kinds / "truth.json").read_text())
    for image in content["images"]:
        image["exhaustive"] = False
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 3]
    (tmp_path / "partial.json").write_text(json.dumps(content))
    dataset = read_coco(tmp_path / "partial.json")
    truths = image_truths(dataset, choose_classes(dataset))
    examples = BoxExamples(
        truths,
        read_proposals(two_kinds / "proposals.json", dataset, count=1000),
        photos=PhotoCache(dataset, two_kinds, 0),
        pixels=False,
        rois=64,
        foreground=0.25,
        background_from=0.0,
        flip=True,
        seed=0,
    )
    drawn = [examples[i] for i in range(24)]
    assert {e.flip for e in drawn} == {True, False}
    for example in drawn:
        truth = truths[example.image_id].boxes
        if example.flip:
            truth = torch.stack([160 - truth[:, 2], truth[:, 1], 160 - truth[:, 0], truth[:, 3]], dim=1)
        overlaps = box_iou(example.boxes, truth).amax(dim=1)
        assert (overlaps >= 0.1).all()
        torch.testing.assert_close(overlaps, example.assigned.ious, atol=1e-5, rtol=0)


def damaged(folder: Path, output: Path, *names: str) -> Path:
    """A copy of a folder in which some photos end in their middle."""
    shutil.copytree(folder, output)
    for name in names:
        (output / name).write_bytes((output / name).read_bytes()[:2000])
    return output


@pytest.mark.parametrize("trunk_factor", [0.0, 1e-9])
def test_a_damaged_photo_is_passed_over(
    two_kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], trunk_factor: float
) -> None:
    folder = damaged(two_kinds, tmp_path / "photos", "3.png")
    config = detector_run(folder, tmp_path / "run", steps=5, trunk_factor=trunk_factor)
    train_detector(config)  # ten examples, nearly two rounds
    assert capsys.readouterr().err.count("3.png") == 1
    dataset = read_coco(config.annotations)
    task = DetectorTask(config, dataset, choose_classes(dataset), torch.device("cpu"), World())
    seen = [task.examples[index].image_id for index in range(12)]
    whole = DetectorTask(
        dataclasses.replace(config, images=str(two_kinds)), dataset, task.classes, torch.device("cpu"), World()
    )
    expected = [whole.examples[index].image_id for index in range(12)]
    assert set(seen) == {1, 2, 4, 5, 6} and expected.count(3) == 2
    assert [(a, b) for a, b in zip(seen, expected, strict=True) if a != b and b != 3] == []


def test_damaged_photos_are_no_run(two_kinds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    every = [f"{number}.png" for number in range(1, 7)]
    folder = damaged(two_kinds, tmp_path / "photos", *every)
    with pytest.raises(DataError, match="none of the photos to learn from can be read"):
        train_detector(detector_run(folder, tmp_path / "run"))
    dataset = read_coco(folder / "truth.json")
    with pytest.raises(DataError, match="none of the photos to validate on can be read"):
        validation_part(dataset, folder, 3)
    for name in every[1:]:
        shutil.copy(two_kinds / name, folder / name)
    capsys.readouterr()
    assert [r.id for r in validation_part(dataset, folder, 6).images] == [2, 3, 4, 5, 6]
    assert "1.png" in (said := capsys.readouterr().err) and "left out of the validation" in said
    options = {"model": "sharpmask-lite0", "count": 5, "cache": tmp_path / "p.jsonl", "device": "cpu"}
    boxes = compute_proposals(dataset, folder, **options)
    assert len(boxes[1]) == 0 and all(len(boxes[i]) for i in range(2, 7)) and "1.png" in capsys.readouterr().err
    shutil.copy(two_kinds / "1.png", folder / "1.png")
    assert len(compute_proposals(dataset, folder, **options)[1])


def test_images_of_rare_classes_are_repeated_by_hand() -> None:
    """Of 16 images all have class 1, four class 2 and one class 3; below a share of 1 sqrt(16 / 4) and sqrt(16 / 1)."""
    labels = [[1, 0]] * 11 + [[1, 2, 2]] * 3 + [[2, 1, 3]] + [[1]]
    assert repeats([torch.tensor(own) for own in labels], 1.0).tolist() == [1] * 11 + [2] * 3 + [4, 1]
    assert repeats([torch.tensor(own) for own in labels], 0.25).tolist() == [1] * 14 + [2, 1]
    assert repeats([torch.tensor(own) for own in labels], 0.0).tolist() == [1] * 16
    assert repeats([torch.tensor([0]), torch.tensor([], dtype=torch.int64)], 1.0).tolist() == [1, 1]


def test_a_round_holds_repeated_images_so_often(two_kinds: Path) -> None:
    dataset = read_coco(two_kinds / "truth.json")
    kept = dataclasses.replace(
        dataset, annotations=tuple(a for a in dataset.annotations if a.category_id == 3 or a.image_id == 2)
    )
    truths = image_truths(kept, choose_classes(kept, min_examples=1))
    proposals = read_proposals(two_kinds / "proposals.json", dataset, count=1000)
    examples = BoxExamples(
        truths, proposals, photos=PhotoCache(dataset, two_kinds, 0), pixels=False, rois=4, foreground=0.25,
        background_from=0.0, flip=False, repeat_below=1.0, seed=0,
    )  # fmt: skip
    seen = [examples[index].image_id for index in range(2 * 7)]  # two of the rare square: sqrt(6 / 1) is nearly 2
    assert sorted(seen[:7]) == sorted(seen[7:]) == [1, 2, 2, 3, 4, 5, 6]
    assert len(examples.foreground_pairs()[0]) == sum(int((a.labels > 0).sum()) for a in examples.assigned.values())


def test_boxes_around_objects_are_added_to_the_proposals(two_kinds: Path) -> None:
    dataset = read_coco(two_kinds / "truth.json")
    truths = image_truths(dataset, choose_classes(dataset))
    none = dict.fromkeys(truths, torch.zeros(0, 4))

    def boxes(jitter: int, seed: int = 0) -> BoxExamples:
        return BoxExamples(
            truths, none, photos=PhotoCache(dataset, two_kinds, 0), pixels=False, rois=64, foreground=1.0,
            background_from=0.0, flip=False, jitter=jitter, seed=seed,
        )  # fmt: skip

    assert {i: len(own) for i, own in boxes(0).boxes.items()} == {i: len(truth.boxes) for i, truth in truths.items()}
    added = boxes(8)
    for image_id, truth in truths.items():
        found, expected = added.boxes[image_id], added.assigned[image_id]
        assert len(found) == 9 * len(truth.boxes)
        assert (found[:, :2] >= 0).all() and (found[:, 2] <= 160).all() and (found[:, 3] <= 120).all()
        overlaps = box_iou(found, truth.boxes).amax(dim=1)
        torch.testing.assert_close(expected.ious, overlaps)
        torch.testing.assert_close(expected.labels > 0, overlaps >= 0.5)
        assert (overlaps > 0.3).all() and (overlaps >= 0.5).float().mean() > 0.6 and len(overlaps.unique()) > 8
        assert torch.equal(found, boxes(8).boxes[image_id]) and not torch.equal(found, boxes(8, seed=1).boxes[image_id])


def test_boxes_around_a_box_lie_on_all_sides_of_it() -> None:
    around = jittered(torch.tensor([[100.0, 200.0, 140.0, 210.0]]), 2000, np.random.default_rng(0))
    sides, centres = around[:, 2:] - around[:, :2], (around[:, :2] + around[:, 2:]) / 2
    moved, resized = (
        (centres - torch.tensor([120.0, 205.0])) / torch.tensor([40.0, 10.0]),
        sides / torch.tensor([40, 10]),
    )
    for values, least, middle, most in ((moved, -0.2, 0.0, 0.2), (resized.log(), -math.log(1.4), 0.0, math.log(1.4))):
        assert (values.amin(dim=0) - least).abs().max() < 0.01 and (values.amax(dim=0) - most).abs().max() < 0.01
        assert (values.mean(dim=0) - middle).abs().max() < 0.02


def test_photos_are_seen_in_several_sizes(two_kinds: Path, tmp_path: Path) -> None:
    """What is in a box is described much the same whatever the photo's size, and the store keeps sizes apart."""
    config = detector_run(two_kinds, tmp_path, zooms=(0.5, 1.0, 2.0), flip=False, short_side=192)
    dataset = read_coco(config.annotations)
    task = DetectorTask(config, dataset, choose_classes(dataset), torch.device("cpu"), World())
    examples = [task.examples[index] for index in range(36)]
    assert {example.zoom for example in examples} == {0.5, 1.0, 2.0}
    assert [example.zoom for example in examples] == [task.examples[index].zoom for index in range(36)]
    seen: dict[float, torch.Tensor] = {}
    for zoom in (0.5, 1.0, 2.0):
        features, scale = task.features(dataclasses.replace(examples[0], zoom=zoom))
        assert scale.factors == (1.6 * zoom, 1.6 * zoom) and features[-1].shape[2:] == (12 * zoom, 16 * zoom)
        boxes = image_truths(dataset, task.classes)[examples[0].image_id].boxes
        seen[zoom] = task.network._pool(features[-1], 1, boxes, scale).mean(dim=(2, 3))
    likeness = torch.nn.functional.cosine_similarity(seen[2.0][:, None], seen[1.0][None], dim=2)
    assert (likeness.argmax(dim=1) == torch.arange(2)).all()  # the disc's to the disc's, the square's to the square's
