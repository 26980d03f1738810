"""What is mined with a proposer whose proposals are known."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sharpmask.cli.main import main
from sharpmask.data.coco import read_coco
from sharpmask.data.geometry import CanonicalGeometry, Window
from sharpmask.data.negatives import NegativeSource, read_hard_negatives
from sharpmask.errors import DataError
from sharpmask.proposals.result import Proposals
from sharpmask.training.mining import add_labels, hard_negatives


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((200, 240), bool)
    mask[top:bottom, left:right] = True
    return mask


class Known:
    """Proposes the same masks for every photo, in windows of 160 pixels around their middles."""

    def __init__(self, masks: list[np.ndarray], scores: list[float]) -> None:
        self.network = SimpleNamespace(spec=SimpleNamespace(patch_size=160, context=16))
        found = Proposals.from_masks(np.array(masks), scores)
        middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        self.found = replace(found, windows=np.concatenate([middles - 80, middles + 80], axis=1))

    def propose(self, image: np.ndarray) -> Proposals:
        assert image.shape == (200, 240, 3)
        return self.found


@pytest.fixture
def partly(shapes: Path, tmp_path: Path) -> Path:
    """Of the six photos the first two with some objects annotated only."""
    content = json.loads((shapes / "instances.json").read_text())
    for photo in content["images"]:
        photo["exhaustive"] = photo["id"] > 2
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    return path


def test_labels_that_nothing_explains_are_added(shapes: Path, partly: Path) -> None:
    first = read_coco(partly).annotations[0]
    x, y, w, h = (int(value) for value in first.bbox)
    masks = [
        rectangle(100, 2, 130, 32),  # new: between the two ellipses, at the top
        rectangle(101, 2, 131, 32),  # the same again
        rectangle(x, y, x + w, y + h),  # an annotated object
        rectangle(x + w // 2 - 6, y + h // 2 - 6, x + w // 2 + 6, y + h // 2 + 6),  # a part of one
        rectangle(105, 170, 125, 190),  # not sure enough
    ]
    known: Any = Known(masks, [0.99, 0.98, 0.97, 0.96, 0.5])
    content, count = add_labels(known, partly, shapes, min_score=0.9, progress=False)
    new = content["annotations"][12:]
    assert count == len(new) >= 2 and {entry["image_id"] for entry in new} == {1, 2}
    assert [entry for entry in new if entry["image_id"] == 1] == new[:1]
    assert new[0] | {"segmentation": None} == {
        "id": 13,
        "image_id": 1,
        "category_id": 3,
        "segmentation": None,
        "bbox": [100.0, 2.0, 30.0, 30.0],
        "area": 900,
        "iscrowd": 0,
        "score": 0.99,
        "pseudo": True,
    }
    assert content["categories"][-1] == {"id": 3, "name": "object"}
    assert [photo["exhaustive"] for photo in content["images"]] == [False, False, True, True, True, True]
    partly.write_text(json.dumps(content))
    assert len(read_coco(partly).annotations) == 12 + count  # what was written can be trained on
    with pytest.raises(DataError, match="no label is missing"):
        add_labels(known, shapes / "instances.json", shapes, min_score=0.9, progress=False)


def test_negatives_are_windows_without_an_object_in_their_middle(shapes: Path, partly: Path, tmp_path: Path) -> None:
    record = read_coco(partly).annotations[4]  # an object of the third photo, which is exhaustive
    x, y, w, h = (int(value) for value in record.bbox)
    known: Any = Known([rectangle(100, 0, 130, 30), rectangle(x, y, x + w, y + h)], [0.95, 0.99])
    found = hard_negatives(known, partly, shapes, min_score=0.9, progress=False)
    assert {entry["image_id"] for entry in found} <= {3, 4, 5, 6}
    mine = [entry for entry in found if entry["image_id"] == 3]
    assert mine == [{"image_id": 3, "x": 115.0, "y": 15.0, "scale": 1.0, "score": pytest.approx(0.95)}]
    path = tmp_path / "negatives.json"
    path.write_text(json.dumps([*found, {"image_id": 1, "x": 115, "y": 15, "scale": 1}]))
    geometry = CanonicalGeometry(negative_shift=32.0, negative_octaves=1.0)
    source = NegativeSource(read_coco(partly), geometry, read_hard_negatives(path), 1.0)
    drawn = {source.draw(np.random.default_rng(seed))[0] for seed in range(40)}
    assert drawn == {entry["image_id"] for entry in found}  # photo 1 is not exhaustive: never
    with pytest.raises(DataError, match="none of the 1 hard negatives"):
        NegativeSource(read_coco(partly), geometry, read_hard_negatives(path)[-1:], 1.0)


@pytest.mark.parametrize("change", [{"scale": 0}, {"scale": float("nan")}, {"x": float("inf")}, {"y": "below"}])
def test_a_list_with_what_is_no_window_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "negatives.json"
    path.write_text(json.dumps([{"image_id": 1, "x": 1.0, "y": 1.0, "scale": 1.0, **change}]))
    with pytest.raises(DataError, match=r"negatives\.json: no list of windows"):
        read_hard_negatives(path)


def test_windows_beyond_the_photo_are_left_out(partly: Path) -> None:
    source = NegativeSource(read_coco(partly), CanonicalGeometry(negative_shift=0.0))
    place = source.places[0]
    inside, outside = Window(1.0, 1.0, 1.0), Window(float(place.width), 1.0, 1.0)
    assert source.is_negative(place, inside) and not source.is_negative(place, outside)


def test_damaged_photos_and_objects_without_a_mask(
    shapes: Path, partly: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The photo is passed over; the object is where its box is."""
    content = json.loads(partly.read_text())
    first = content["annotations"][0]
    assert first["image_id"] == 1
    del first["segmentation"]
    partly.write_text(json.dumps(content))
    photos = tmp_path / "photos"
    shutil.copytree(shapes, photos)
    for photo in content["images"]:
        if photo["id"] in (2, 4):
            file = photos / photo["file_name"]
            file.write_bytes(file.read_bytes()[:2000])
    x, y, w, h = (int(value) for value in first["bbox"])
    known: Any = Known([rectangle(100, 2, 130, 32), rectangle(x, y, x + w, y + h)], [0.99, 0.98])
    labels, count = add_labels(known, partly, photos, min_score=0.9, progress=False)
    assert count == 1 and labels["annotations"][-1]["image_id"] == 1
    negatives = hard_negatives(known, partly, photos, min_score=0.9, progress=False)
    assert {entry["image_id"] for entry in negatives} <= {3, 5, 6}
    told = capsys.readouterr().err
    assert told.count("it is passed over") == 2


def test_the_command(shapes: Path, partly: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known([rectangle(100, 0, 130, 30)], [0.95])
    known.found = replace(known.found, stability=np.ones(1, np.float32))
    monkeypatch.setattr("sharpmask.load", lambda model, **options: known)
    for what in ("labels", "negatives"):
        output = tmp_path / f"{what}.json"
        assert main(["mine", what, str(partly), "--images", str(shapes), "--output", str(output)]) == 0
        assert json.loads(output.read_text())
    assert main(["mine", "labels", str(partly), "--images", str(shapes), "--output", "o", "--most", "0"]) == 2
