"""The page of pictures: the right mask for each object, red outlines for the missed, everything in one file."""

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sharpmask.cli.main import main
from sharpmask.reproduce import qualitative
from sharpmask.reproduce.datasets import Photos
from sharpmask.reproduce.drawing import RED, draw_matches, draw_sheet, draw_truth
from sharpmask.reproduce.measure import read_validation
from sharpmask.reproduce.methods import Method


def rle(mask: np.ndarray) -> dict[str, object]:
    return dict(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((60, 90), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def test_missed_objects_are_outlined_in_red_and_found_ones_filled() -> None:
    photo = np.full((60, 90, 3), 120, np.uint8)
    found, missed, match = square(10, 10, 20), square(20, 50, 30), square(12, 12, 20)
    picture = np.asarray(draw_matches(photo, [rle(found), rle(missed)], [rle(match), None])).astype(int)
    red = abs(picture - RED.astype(int)).max(axis=2) < 30
    assert red[20, 50:80].all() and red[20:50, 50].all()  # the missed object's edge
    assert not red[24:46, 54:76].any() and (picture[35, 65] == 120).all()  # its inside is the photo
    assert not red[:, :49].any()
    changed = (picture != 120).any(axis=2)
    assert (changed[:, :49] == match[:, :49]).all()  # the mask that was found, not the true one
    truth = np.asarray(draw_truth(photo, [rle(found), rle(missed)]))
    assert ((truth != 120).any(axis=2) == (found | missed)).all()
    # An object has the same colour in all pictures.
    assert (truth[25, 25] == picture[25, 25]).all() and (truth[35, 65] != truth[25, 25]).any()


def test_the_sheet_keeps_photos_together_and_in_order() -> None:
    wide, tall = Image.new("RGB", (640, 400), "red"), Image.new("RGB", (300, 400), "blue")
    # Three pictures 320 wide, or 150: 964 and 454 a photo, of which two and then three have room in a row of 1900.
    sheet = np.asarray(draw_sheet([[wide] * 3, [tall] * 3, [wide] * 3, [tall] * 3]))
    assert sheet.shape == (412, 964 + 12 + 454, 3)
    red, blue = ((sheet == colour).all(axis=2) for colour in ((255, 0, 0), (0, 0, 255)))
    for first in (0, 212):
        row = slice(first, first + 200)
        for column in range(3):
            assert red[row, column * 322 : column * 322 + 320].all()
            assert blue[row, 976 + column * 152 : 976 + column * 152 + 150].all()
    assert (sheet[200:212] == 255).all() and (sheet[:, 964:976] == 255).all() and (sheet[:, 320:322] == 255).all()


def test_only_photos_of_the_licences_asked_for(
    data: Path,
    weights: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    tiny_models: None,
) -> None:
    shutil.copytree(data, tmp_path / "licensed")
    file = tmp_path / "licensed" / "instances_val.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["license"] = {5: 2, 6: 4}[image["id"]]
    file.write_text(json.dumps(content))
    command = ["reproduce", "qualitative", "--data", str(tmp_path / "licensed"), "--output", str(tmp_path / "out")]
    command += ["--model", str(weights["sharpmask-lite0"])]
    assert main([*command, "--licenses", "4", "7", "--failures", "2"]) == 0
    pictures = {path.name for path in (tmp_path / "out" / "qualitative").iterdir() if path.suffix in (".png", ".jpg")}
    assert pictures == {"6_annotated.png", "6_deepmask.png", "6_sharpmask.png", "qualitative.jpg"}
    with Image.open(tmp_path / "out" / "qualitative" / "qualitative.jpg") as sheet:
        assert sheet.size == (3 * 240 + 4, 200)
    assert main([*command, "--licenses", "7"]) == 2
    assert f"{file} has no image with the license 7; its images have: 2, 4" in capsys.readouterr().err
    assert main([*command, "--licenses", "4", "--images", "5"]) == 2
    assert "5: not under one of the licences that --licenses names" in capsys.readouterr().err


def test_the_proposal_of_highest_iou(data: Path) -> None:
    everything = read_validation(Photos(data / "instances_val.json", data / "val"))
    objects = everything.truth.truth(5, boxes=False, masks=True).rles
    assert objects is not None
    far = np.zeros((200, 240), bool)
    far[:5, :5] = True
    masks = [rle(far), objects[1], objects[0], rle(far)]
    method = Method(lambda path, i: [{"image_id": i, "segmentation": m, "score": 0.5} for m in masks], None, ())  # type: ignore[arg-type]
    assert qualitative._best(method, everything, 5) == [(1.0, objects[0]), (1.0, objects[1])]
    nothing = Method(lambda path, i: [], None, ())  # type: ignore[arg-type]
    assert qualitative._best(nothing, everything, 5) == [(0.0, None)] * 2


@pytest.mark.usefixtures("tiny_models")
def test_the_page_is_one_file(
    data: Path,
    weights: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    common = ["--data", str(data), "--model", str(weights["sharpmask-lite0"]), "--output", str(tmp_path)]
    assert main(["reproduce", "qualitative", *common, "--images", "6.png"]) == 0
    folder = tmp_path / "qualitative"
    assert f"{folder / 'qualitative.html'}, and its pictures" in capsys.readouterr().out
    text = (folder / "qualitative.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text) and "<script" not in text
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(pictures) == 6 and base64.b64decode(pictures[0]).startswith(b"\xff\xd8")  # asked for, and a failure case
    assert text.index("6.png") < text.index("Failure cases: of 1 other photos") < text.index("5.png")
    assert text.count("</strong>: 0 of 2 objects found") == 4
    names = sorted(path.name for path in folder.glob("*.png"))
    assert names == sorted(f"{i}_{kind}.png" for i in (5, 6) for kind in ("annotated", "deepmask", "sharpmask"))
    with Image.open(folder / "6_sharpmask.png") as picture:
        assert picture.size == (240, 200)
    # A second run has nothing left to propose.
    monkeypatch.setattr(qualitative, "open_method", lambda *_: pytest.fail("a photo was proposed for twice"))
    assert main(["reproduce", "qualitative", *common, "--count", "1", "--failures", "0", "--seed", "2"]) == 0
    text = (folder / "qualitative.html").read_text()
    assert "1 photos drawn with seed 2" in text and "Failure cases" not in text


@pytest.mark.usefixtures("tiny_models")
def test_images_that_are_not_there(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["reproduce", "qualitative", "--data", str(data), "--output", str(tmp_path / "out")]
    assert main([*common, "--images", "5", "77", "x.jpg"]) == 2
    assert "has no image with the id or file name 77, x.jpg" in capsys.readouterr().err
