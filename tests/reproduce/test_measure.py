"""Measuring photo by photo: the figures of the whole evaluation, and a stop that costs one photo."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sharpmask.errors import DataError
from sharpmask.evaluation.recall import evaluate_recall
from sharpmask.reproduce.datasets import Photos
from sharpmask.reproduce.measure import measure, read_validation

SIDE = 60


def rle(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """Five photos (empty files, nobody reads them) with two squares each, none in the last."""
    (tmp_path / "val").mkdir()
    images, annotations = [], []
    for i in range(1, 6):
        (tmp_path / "val" / f"{i}.jpg").touch()
        images.append({"id": i, "file_name": f"{i}.jpg", "height": SIDE, "width": SIDE})
        for left in (2, 35) if i < 5 else ():
            mask = rle(square(5, left, 20))
            record = {"image_id": i, "category_id": 1, "segmentation": mask, "area": 400.0, "bbox": [left, 5, 20, 20]}
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **record})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (tmp_path / "instances_val.json").write_text(json.dumps(content))
    return Photos(tmp_path / "instances_val.json", tmp_path / "val")


def propose(path: Path, image_id: int) -> list[dict[str, Any]]:
    """The first square shifted by the photo's number, at rank 1; the second one exactly, but last of 1,001."""
    assert path.name == f"{image_id}.jpg"
    masks = [square(5, 2 + image_id, 20), *[square(40, 0, 5)] * 999, square(5, 35, 20)]
    return [
        {"image_id": image_id, "segmentation": rle(mask), "score": 1 - 0.0005 * rank} for rank, mask in enumerate(masks)
    ]


IDENTITY = {"weights": "w"}


def test_as_the_whole_evaluation_and_the_upper_bound(photos: Photos, tmp_path: Path) -> None:
    validation = read_validation(photos)
    found = measure(propose, validation, tmp_path / "m.jsonl", name="x", identity=IDENTITY,
                    iou_types=("bbox", "segm"), upper_bound=True)  # fmt: skip
    records = [record for i in range(1, 6) for record in propose(Path(f"{i}.jpg"), i)]
    whole = evaluate_recall(photos.annotations, records, progress=False)
    for kind in ("bbox", "segm"):
        for area in ("all", "small", "large"):
            one, two = (recall.areas[kind][area].estimates for recall in (found.recall, whole))
            for metric, estimate in one.items():
                assert vars(estimate) == pytest.approx(vars(two[metric]), nan_ok=True)
    # IoU of squares shifted by 1 … 4 of 20 pixels: 19/21, 18/22, 17/23, 16/24 reach 9, 7, 5 and 4 thresholds.
    assert found.recall.value("AR@1000") == pytest.approx((0.9 + 0.7 + 0.5 + 0.4) / 8)
    bound = found.estimate("upper bound")
    assert bound is not None and bound.value == pytest.approx((0.9 + 0.7 + 0.5 + 0.4 + 4) / 8)
    assert found.proposals == 5 * 1001


def test_a_stop_costs_one_photo(photos: Photos, tmp_path: Path) -> None:
    validation, file = read_validation(photos), tmp_path / "m.jsonl"
    asked: list[int] = []

    def stopping(path: Path, image_id: int) -> Sequence[dict[str, Any]]:
        asked.append(image_id)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return propose(path, image_id)

    def measured(method: Any, identity: dict[str, Any] = IDENTITY) -> Any:
        return measure(method, validation, file, name="x", identity=identity, iou_types=("segm",))

    with pytest.raises(KeyboardInterrupt):
        measured(stopping)
    # A stop may also cut the line that is being written.
    text = file.read_text()
    file.write_text(text[: text.rindex("\n") - 20])
    found = measured(stopping)
    assert asked == [1, 2, 3, 2, 3, 4, 5]
    assert found.recall.value("AR@1000") == pytest.approx((0.9 + 0.7 + 0.5 + 0.4) / 8)
    assert measured(stopping).recall.value("AR@10") == found.recall.value("AR@10") and len(asked) == 7
    # Other weights: everything anew.
    measured(stopping, {"weights": "v"})
    assert len(asked) == 12


def test_the_first_photos_only(photos: Photos, tmp_path: Path) -> None:
    validation = read_validation(photos).first(2)
    found = measure(propose, validation, tmp_path / "m.jsonl", name="x", identity=IDENTITY, iou_types=("segm",))
    assert (found.recall.images, found.recall.objects) == (2, 4)
    assert found.recall.value("AR@1000") == pytest.approx((0.9 + 0.7) / 4)


def test_missing_photos_are_named(photos: Photos) -> None:
    (photos.images / "3.jpg").unlink()
    with pytest.raises(DataError, match=r"1 photos of .* are missing, first .*3\.jpg"):
        read_validation(photos).first(5)
    assert len(read_validation(photos).first(2).paths) == 2
