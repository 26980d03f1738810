"""The study of rankings on a cache whose masks are known."""

import argparse
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from sharpmask.evaluation.recall import evaluate_recall
from sharpmask.proposals.result import Proposals


@pytest.fixture(scope="module")
def ranking(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("ranking")


def scene(seed: int) -> tuple[np.ndarray, Proposals]:
    """Two objects of one photo; the first is proposed twenty times before the second is, and nothing else."""
    rng = np.random.default_rng(seed)
    objects = np.zeros((2, 60, 80), bool)
    objects[0, 5:35, 5:35] = objects[1, 20:50, 45:75] = True
    masks = np.zeros((21, 60, 80), bool)
    for mask in masks[:20]:
        right, bottom = 33 + rng.integers(0, 4, 2)
        mask[5:bottom, 5:right] = True
    masks[20] = objects[1]
    found = Proposals.from_masks(masks, np.linspace(0.9, 0.5, 21))
    return objects, replace(found, stability=np.full(21, 0.8, np.float32), scales=np.repeat([-1.0, 0.0, 0.5], 7))


def test_study(ranking: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, annotations, records = [], [], []
    (tmp_path / "cache").mkdir()
    for number in (1, 2, 3):
        objects, found = scene(number)
        images.append({"id": number, "file_name": f"{number}.png", "height": 60, "width": 80})
        for mask in objects:
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            x, y, w, h = map(float, coco_mask.toBbox(rle))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": {**rle, "counts": rle["counts"].decode()},
                    "bbox": [x, y, w, h],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
            )
        if number < 3:  # the third photo was not searched: it must not count
            (tmp_path / "cache" / f"{number}.pickle").write_bytes(pickle.dumps({"image_id": number, **vars(found)}))
            records += found.to_coco(number)
    truth = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    arguments = argparse.Namespace(
        cache=tmp_path / "cache",
        annotations=tmp_path / "truth.json",
        fit=tmp_path / "cache",
        fit_annotations=tmp_path / "truth.json",
        half_steps=None,
        json=tmp_path / "out.json",
    )
    for _ in range(2):  # the second time with the overlaps that the first has kept
        ranking.study(arguments)
        assert "truth.json: 2 photos, 4 objects" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out.json").read_text())["rankings"]
    truth = {**truth, "images": images[:2], "annotations": annotations[:4]}
    expected = evaluate_recall(truth, records, iou_types=["segm"], progress=False)
    for metric in ("AR@10", "AR@100", "AR@1000", "AUC"):
        assert rows["paper"][metric]["value"] == pytest.approx(expected.value(metric))
    # Only the first object is among the first ten; with copies moved back both are.
    soft = rows["soft NMS, linear above 0.5"]
    assert soft["AR@10"]["value"] > rows["paper"]["AR@10"]["value"] + 0.4
    assert soft["AR@10"]["difference"]["low"] > 0
    assert soft["AR@1000"]["value"] == pytest.approx(rows["paper"]["AR@1000"]["value"])
    assert rows["NMS 0.5"]["AR@1000"]["value"] <= rows["NMS 0.5, dropped last"]["AR@1000"]["value"]
    assert rows["NMS 0.5"]["AR@10"]["value"] > rows["paper"]["AR@10"]["value"]


def test_calibration_finds_the_scale_that_boasts(ranking: ModuleType) -> None:
    """Of two scales with equal scores one has masks of IoU .2, the other of .8."""
    photo = ranking.Found(
        1,
        logits=np.tile([0.5, -0.5], 40),
        scales=np.repeat([-1.0, 0.5], 40),
        stability=np.ones(80),
        pairs=None,
        truth=np.repeat([[0.2], [0.8]], 40, axis=0),
    )
    for slopes in (False, True):
        calibrated = ranking.calibrate([photo], slopes=slopes)(photo)
        np.testing.assert_allclose(calibrated[:40].mean(), np.log(0.25), atol=0.05)
        np.testing.assert_allclose(calibrated[40:].mean(), np.log(4), atol=0.05)
