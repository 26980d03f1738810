"""Photos that a run measures itself on: which they are, turned ones, and such as cannot be read."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from short_runs import short_run

from sharpmask.checkpoints.store import load_network
from sharpmask.data.coco import read_coco
from sharpmask.errors import DataError
from sharpmask.training.ledger import measure_run
from sharpmask.training.measure import Part, measured_truth, propose_for
from sharpmask.training.run import train
from sharpmask.training.validation import Validator

TURNED = 6  # EXIF: the photo is to be turned by a quarter


def test_measured_photos_are_exhaustive_ones_spread_evenly(shapes: Path, tmp_path: Path) -> None:
    content = json.loads((shapes / "instances.json").read_text())
    content["images"][0]["exhaustive"] = False
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert [photo["id"] for photo in measured_truth(str(path), 100)["images"]] == [2, 3, 4, 5, 6]
    some = measured_truth(str(path), 2, frozenset({3, 4, 5, 6}))
    assert [photo["id"] for photo in some["images"]] == [3, 5]
    assert {a["image_id"] for a in some["annotations"]} == {3, 5}


@pytest.fixture
def one_photo(tmp_path: Path) -> Path:
    """A photo of 96 x 128 with a bright rectangle, stored so, with an EXIF note that it is to be turned; annotated by a
    tool that does not read such notes."""
    pixels = np.full((96, 128, 3), 60, np.uint8)
    pixels[20:70, 30:100] = (230, 200, 40)
    exif = Image.Exif()
    exif[0x112] = TURNED
    Image.fromarray(pixels).save(tmp_path / "1.jpg", exif=exif, quality=95)
    record = {"id": 1, "file_name": "1.jpg", "height": 96, "width": 128}
    box = [30, 20, 70, 50]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 3500, "iscrowd": 0}
    annotation["segmentation"] = [[30, 20, 100, 20, 100, 70, 30, 70]]
    content = {"images": [record], "annotations": [annotation], "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    return tmp_path


def test_masks_lie_on_the_photo_as_it_was_annotated(one_photo: Path) -> None:
    path = str(one_photo / "truth.json")
    part = Part(measured_truth(path, 1), read_coco(path).image_by_id, one_photo)
    found = propose_for(load_network(), part, torch.device("cpu"))
    assert found and all(entry["segmentation"]["size"] == [96, 128] for entry in found)


def test_a_photo_that_cannot_be_read_costs_its_objects_only(
    shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((shapes / "instances.json").read_text())
    content["images"][0]["file_name"] = "gone.png"
    (tmp_path / "val.json").write_text(json.dumps(content))
    config = short_run(
        shapes, tmp_path, val_annotations=str(tmp_path / "val.json"), val_images=str(shapes), measure_photos=2
    )
    network = load_network()
    row = measure_run(config, network, torch.device("cpu"))["val"]
    assert row["photos"] == 2 and 0 < row["AR@1000"]["value"] < 1
    assert "gone.png" in capsys.readouterr().err
    # The validation leaves it out, and shows objects of the others.
    validator = Validator(config, network.spec)
    picture = validator.picture(network, torch.device("cpu"))
    assert picture.shape[1] == 3 * 160 and picture[:, 320:].amax() == 1


def test_nothing_to_measure_on_is_said_before_the_first_step(shapes: Path, tmp_path: Path) -> None:
    content = json.loads((shapes / "instances.json").read_text())
    for photo in content["images"]:
        photo["exhaustive"] = False
    (tmp_path / "val.json").write_text(json.dumps(content))
    given = {"val_annotations": str(tmp_path / "val.json"), "val_images": str(shapes)}
    for more in ({"measure_photos": 2}, {"validation_photos": 2}):
        with pytest.raises(DataError, match=r"val\.json: no photo is annotated exhaustively"):
            train(short_run(shapes, tmp_path / "run", **given, **more))
    assert not list((tmp_path / "run").glob("*.safetensors"))
