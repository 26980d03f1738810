"""The page of pictures: the right mask for each object, red outlines for the missed, everything in one file."""

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sharpmask.cli.main import main
from sharpmask.reproduce import qualitative
from sharpmask.reproduce.datasets import Photos
from sharpmask.reproduce.drawing import RED, draw_matches, draw_truth
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
