"""Files of the listed photos, and masks at the size shown."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from sharpmask.errors import DataError
from sharpmask.evaluation.inputs import read_annotations
from sharpmask.report.photos import find_photos, mask_area, shown_mask, shown_size


def listed(*names: str) -> dict[str, object]:
    images = [{"id": number, "file_name": name} for number, name in enumerate(names, 1)]
    return {"images": images, "annotations": [], "categories": []}


def test_the_longest_end_of_the_name_that_is_a_file_counts(tmp_path: Path) -> None:
    for name in ("sub/a.png", "a.png", "b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    found = find_photos(read_annotations(listed("/home/me/in/sub/a.png", "x/a.png", "../b.png", "c.png")), tmp_path)
    assert [photo.path.relative_to(tmp_path).as_posix() for photo in found.values()] == ["sub/a.png", "a.png", "b.png"]


def test_two_images_never_get_one_file(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"one/a\.png and two/a\.png would both be"):
        find_photos(read_annotations(listed("one/a.png", "two/a.png")), tmp_path)


def test_masks_are_sampled_at_the_middle_of_the_shown_pixels() -> None:
    rng = np.random.default_rng(0)
    mask = np.asfortranarray(rng.random((90, 130)) < 0.4, dtype=np.uint8)
    mask[:30, :40] = 1
    code = coco_mask.encode(mask)
    rle = {"size": [90, 130], "counts": code["counts"].decode("ascii")}
    assert mask_area(rle) == mask.sum()
    assert shown_mask(rle, (90, 130)) == rle["counts"]
    small = coco_mask.decode({"size": [30, 43], "counts": shown_mask(rle, (30, 43)).encode()})
    rows, columns = (np.arange(30) * 2 + 1) * 90 // 60, (np.arange(43) * 2 + 1) * 130 // 86
    assert (small == mask[np.ix_(rows, columns)]).all()


def test_shown_size_keeps_small_photos() -> None:
    assert shown_size((480, 640), 640) == (480, 640)
    assert shown_size((3000, 4000), 640) == (480, 640)
    assert shown_size((1, 9000), 100) == (1, 100)
