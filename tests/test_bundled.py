"""The road a new user takes: the bundled model on the example photo, offline, from the command line and from Python."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import sharpmask
from sharpmask.cli.main import main
from sharpmask.detection.detector import Detector
from sharpmask.evaluation.detections import ALL, evaluate_detections
from sharpmask.evaluation.recall import evaluate_recall

EXAMPLE = Path(__file__).parents[1] / "examples" / "riders.jpg"


def test_readme_command_writes_overlay_and_coco_json(tmp_path: Path) -> None:
    """As README's first command after the installation; a proxy that leads nowhere stands for "offline"."""
    offline = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "sharpmask.cli.main", "propose", str(EXAMPLE), "--output", str(tmp_path)]
    done = subprocess.run([*command, "--top", "100"], env={**os.environ, **offline}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    overlay = np.asarray(Image.open(tmp_path / "riders_overlay.png").convert("RGB")).astype(int)
    photo = np.asarray(Image.open(EXAMPLE).convert("RGB")).astype(int)
    changed = (abs(overlay - photo).max(axis=2) > 30).mean()
    assert overlay.shape == photo.shape and 0.005 < changed < 0.9
    truth = COCO(str(tmp_path / "images.json"))
    results = truth.loadRes(str(tmp_path / "proposals.json"))
    records = json.loads((tmp_path / "proposals.json").read_text())
    assert 50 < len(records) <= 100
    scores = [record["score"] for record in records]
    assert scores == sorted(scores, reverse=True) and 0 <= scores[-1] <= scores[0] <= 1
    for annotation in results.loadAnns(results.getAnnIds())[:5]:
        mask = results.annToMask(annotation)
        rows, cols = np.nonzero(mask)
        x, y, width, height = annotation["bbox"]
        assert (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1) == (x, y, x + width, y + height)


@pytest.mark.parametrize(
    ("model", "least"), [("sharpmask-lite0", 0.20), ("deepmask-lite0", 0.18), ("sharpmask-fast", 0.16)]
)
def test_bundled_models_find_objects_of_real_photos(model: str, least: float, shared: Path) -> None:
    """AR@100 on a few photos (README has all of them): guards against broken weights or geometry."""
    folder = shared / "data" / "coco-mini"
    truth = json.loads((folder / "instances_val.json").read_text())
    truth["images"] = truth["images"][::26]
    chosen = {image["id"] for image in truth["images"]}
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in chosen]
    proposer = sharpmask.load(model, top=100)
    records = []
    for image in truth["images"]:
        records += proposer.propose(folder / "val" / image["file_name"]).to_coco(image["id"])
    recall = evaluate_recall(truth, records, resamples=1, progress=False)
    assert recall.value("AR@100", "segm") > least
    assert recall.value("AR@100", "bbox") > least


def test_the_bundled_detector_names_what_is_in_real_photos(shared: Path) -> None:
    """Most of what is named in every eighth photo is right (docs/detect.md has all of them)."""
    folder = shared / "data" / "coco-mini"
    truth = json.loads((folder / "instances_val.json").read_text())
    truth["images"] = truth["images"][::8]
    chosen = {image["id"] for image in truth["images"]}
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in chosen]
    detector = Detector.load(proposals=60)
    records = []
    for image in truth["images"]:
        found = detector.detect(folder / "val" / image["file_name"])
        assert set(found.names) <= {entry.name for entry in detector.classes}
        records += found.to_coco(image["id"], "bbox")
    scores = evaluate_detections(truth, records, iou_types=("bbox",), classes=["person"], min_score=0.5, resamples=1)
    shown = scores.shown["bbox"][ALL]
    assert shown.precision.value > 0.6 and shown.recall.value > 0.15


def test_the_detect_command_needs_no_file_but_the_photo(tmp_path: Path) -> None:
    assert main(["detect", str(EXAMPLE), "--output", str(tmp_path), "--proposals", "60"]) == 0
    names = {c["id"]: c["name"] for c in json.loads((tmp_path / "images.json").read_text())["categories"]}
    records = json.loads((tmp_path / "bbox.json").read_text())
    assert len(names) == 44 and records and {record["category_id"] for record in records} <= names.keys()
    assert all(0.05 <= record["score"] <= 1 for record in records)
    assert (tmp_path / "riders_overlay.png").exists()


def test_python_api_of_the_readme() -> None:
    proposer = sharpmask.load(top=30)
    found = proposer.propose(np.asarray(Image.open(EXAMPLE)))
    assert found.masks.shape == (len(found), *found.image_size)
    best = found.nms(0.7).filter(min_score=0.01)[:5]
    assert 0 < len(best) <= 5
    assert best.to_coco(image_id=1)[0]["image_id"] == 1
    assert isinstance(proposer, sharpmask.Proposer) and isinstance(found, sharpmask.Proposals)


def test_unknown_model_is_one_clear_line() -> None:
    with pytest.raises(sharpmask.SharpMaskError, match="'sharpmusk' is neither a bundled model"):
        sharpmask.load("sharpmusk")


def test_type_checkers_see_the_packages_types() -> None:
    assert (Path(sharpmask.__file__).parent / "py.typed").is_file()
