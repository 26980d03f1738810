"""`sharpmask.data.check`: every class of fault is found, and sound data have none."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_folders import GROUND, Folder, rectangle
from PIL import Image

from sharpmask.data.check import ERRORS, WARNINGS, assert_trainable, check
from sharpmask.data.coco import CocoDataset, read_coco
from sharpmask.data.examples import ExampleDataset
from sharpmask.data.photos import read_photo
from sharpmask.errors import DataError


def sound(folder: Folder) -> Folder:
    folder.scene((60, 80), (10, 12, 30, 20))
    folder.scene((80, 60), (5, 5, 30, 40), exhaustive=False)
    return folder


def missing_image(folder: Folder) -> None:
    (folder.path / "001.png").unlink()


def truncated_image(folder: Folder) -> None:
    path = folder.path / "001.png"
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:-6000])


def no_image_at_all(folder: Folder) -> None:
    (folder.path / "001.png").write_text("this is no picture")


def add(folder: Folder, segmentation: Any, **more: Any) -> None:
    folder.add(1, segmentation, **more)


BROKEN: dict[str, tuple[str, Callable[[Folder], Any]]] = {
    "missing image": ("missing-image", missing_image),
    "truncated image": ("damaged-image", truncated_image),
    "no image": ("damaged-image", no_image_at_all),
    "other size": ("image-size", lambda f: f.images[0].update(width=60, height=80)),
    "polygon outside": ("outside", lambda f: add(f, [rectangle(70, 10, 25, 20)])),
    "two corners": ("degenerate-polygon", lambda f: add(f, [rectangle(9, 9, 9, 9), [1, 2, 3, 4]])),
    "no area": ("degenerate-polygon", lambda f: add(f, [rectangle(9, 9, 9, 9), [1, 1, 20, 20, 40, 40]])),
    "empty polygon mask": ("empty-mask", lambda f: add(f, [rectangle(9, 9, 0.1, 0.1)], bbox=[9, 9, 1, 1], area=1)),
    "empty RLE mask": (
        "empty-mask",
        lambda f: add(f, {"size": [60, 80], "counts": [4800]}, bbox=[9, 9, 9, 9], area=81),
    ),
    "no segmentation": ("segmentation", lambda f: add(f, [], bbox=[9, 9, 9, 9], area=81)),
    "RLE of another size": ("segmentation", lambda f: add(f, {"size": [80, 60], "counts": [100, 4700]})),
    "RLE counts": ("segmentation", lambda f: add(f, {"size": [60, 80], "counts": [100, 100]})),
    "duplicate image": ("duplicate-image-id", lambda f: f.images.append(dict(f.images[0]))),
    "duplicate annotation": (
        "duplicate-annotation-id",
        lambda f: f.annotations.append({**f.annotations[0], "image_id": 2}),
    ),
    "unknown image": ("unknown-image", lambda f: f.add(99, [rectangle(9, 9, 9, 9)])),
    "unknown category": ("unknown-category", lambda f: add(f, [rectangle(9, 9, 9, 9)], category_id=2)),
    "no annotations": ("no-annotations", lambda f: f.annotations.clear()),
    "no images": ("no-images", lambda f: (f.images.clear(), f.annotations.clear())),
    "nothing usable": ("no-usable", lambda f: [each.update(iscrowd=1) for each in f.annotations]),
    "record": ("record", lambda f: f.annotations.append({"id": 5})),
    "box without extent": ("bad-box", lambda f: add(f, [rectangle(9, 9, 9, 9)], bbox=[9, 9, 0, 9])),
    "other box": ("box-differs", lambda f: add(f, [rectangle(9, 9, 9, 9)], bbox=[30, 9, 9, 9])),
    "other area": ("area-differs", lambda f: add(f, [rectangle(9, 9, 9, 9)], area=5000)),
    "same file": ("same-file", lambda f: f.images.append({**f.images[0], "id": 50})),
    "same object": ("same-object", lambda f: f.annotations.append({**f.annotations[0], "id": 50})),
    "nothing exhaustive": ("no-exhaustive", lambda f: f.images[0].update(exhaustive=False)),
}


def test_sound_data_have_no_faults(folder: Folder) -> None:
    report = check(sound(folder).json, folder.path)
    assert not report.counts
    assert (report.images, report.annotations, report.usable, report.exhaustive) == (2, 2, 2, 1)
    assert "0 errors, 0 warnings" in str(report)


def test_every_class_of_fault_has_a_case() -> None:
    assert {kind for kind, _ in BROKEN.values()} == ERRORS.keys() | WARNINGS.keys()


@pytest.mark.parametrize("name", BROKEN)
def test_faults_are_found(folder: Folder, name: str) -> None:
    kind, damage = BROKEN[name]
    damage(sound(folder))
    report = check(folder.json, folder.path)
    assert report.counts.get(kind), str(report)
    assert report.examples[kind]
    assert (report.error_count > 0) == (kind in ERRORS)
    assert (ERRORS | WARNINGS)[kind] in str(report)


def test_many_faults_are_counted_and_five_shown(folder: Folder) -> None:
    sound(folder)
    for _ in range(12):
        add(folder, [rectangle(200, 10, 25, 20)], bbox=[200, 10, 25, 20], area=500)
    report = check(folder.json, folder.path)
    assert report.counts["outside"] == report.counts["empty-mask"] == 12
    assert len(report.examples["outside"]) == 5
    assert "… and 7 more" in str(report)
    assert "annotation 3 of image 1" in report.examples["outside"][0]


def test_rounding_at_the_border_is_no_fault(folder: Folder) -> None:
    folder.scene((60, 80), (10, 12, 30, 20))
    add(folder, [rectangle(-0.5, -1, 82, 61.5)])
    assert not check(folder.json, folder.path).counts


def test_photos_turned_by_exif_fit_upright_and_as_stored(folder: Folder) -> None:
    pixels = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8)
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(folder.path / "turned.png", exif=exif)
    stored, upright = pixels, np.rot90(pixels, -1)
    for expected in (stored, upright):
        height, width = expected.shape[:2]
        folder.images = [{"id": 1, "file_name": "turned.png", "height": height, "width": width}]
        folder.annotations = []
        folder.add(1, [rectangle(5, 5, 20, 20)])
        assert not check(folder.json, folder.path).counts
        dataset = folder.read()
        assert_trainable(dataset, folder.path)
        np.testing.assert_array_equal(read_photo(dataset.images[0], folder.path), expected)


def test_sound_data_are_trainable(folder: Folder) -> None:
    assert_trainable(sound(folder).read(), folder.path)


TRAINABLE_ANYWAY = {
    # found by a full decode, or left out of the examples, or harmless to them
    "truncated image",
    "polygon outside",
    "two corners",
    "no area",
    "empty polygon mask",
    "empty RLE mask",
    "no segmentation",
    "duplicate annotation",
    "unknown image",
    "unknown category",
    "box without extent",
    "other box",
    "other area",
    "same file",
    "same object",
    "RLE of another size",  # without area it is no example
    "RLE counts",
}


@pytest.mark.parametrize("name", sorted(BROKEN.keys() - TRAINABLE_ANYWAY - {"record"}))
def test_training_refuses_what_would_stop_it(folder: Folder, name: str) -> None:
    BROKEN[name][1](sound(folder))
    with pytest.raises(DataError, match=r"instances\.json"):
        assert_trainable(folder.read(), folder.path)


@pytest.mark.parametrize("name", sorted(TRAINABLE_ANYWAY))
def test_training_copes_with_the_rest(folder: Folder, name: str) -> None:
    BROKEN[name][1](sound(folder))
    assert_trainable(folder.read(), folder.path)


def test_training_names_the_first_fault_and_counts_the_others(folder: Folder) -> None:
    sound(folder)
    for number in range(3):
        add(folder, {"size": [80, 60], "counts": [100, 4700]}, bbox=[9, 9, 20, 20 + number], area=400)
    with pytest.raises(DataError, match=r"annotation 3: the RLE is of size \[80, 60\].*2 faults more.*sharpmask check"):
        assert_trainable(folder.read(), folder.path)


def test_masks_alone_need_no_exhaustive_image(folder: Folder) -> None:
    folder.scene((60, 80), (10, 12, 30, 20), exhaustive=False)
    assert_trainable(folder.read(), folder.path, negatives=False)
    with pytest.raises(DataError, match="exhaustive"):
        assert_trainable(folder.read(), folder.path)


def test_no_room_for_negatives_is_refused(folder: Folder) -> None:
    image_id = folder.photo(np.full((60, 80, 3), GROUND, np.uint8))
    folder.add(image_id, [rectangle(10, 10, 30, 30)])
    folder.add(image_id, [rectangle(0, 0, 80, 60)], iscrowd=1)
    with pytest.raises(DataError, match="background"):
        assert_trainable(folder.read(), folder.path)


def test_a_missing_folder_is_named(folder: Folder, tmp_path: Path) -> None:
    path = sound(folder).json
    with pytest.raises(DataError, match="absent"):
        check(path, tmp_path / "absent")
    with pytest.raises(DataError, match="absent"):
        assert_trainable(folder.read(), tmp_path / "absent")


def test_coco_mini_is_trainable(coco_mini: Callable[[str], tuple[CocoDataset, Path]]) -> None:
    dataset, image_dir = coco_mini("val")
    assert_trainable(dataset, image_dir)


def training_examples(folder: Folder, **more: Any) -> ExampleDataset:
    dataset = read_coco(folder.json)
    return ExampleDataset(dataset=dataset, image_dir=folder.path, seed=0, **{"length": 40, "batch_size": 4, **more})


def test_training_passes_over_a_photo_that_is_damaged_inside(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its header is whole, so that only reading it tells; other examples are drawn, always the same ones."""
    sound(folder)
    folder.scene((60, 80), (20, 12, 25, 30))
    before = [training_examples(folder)[index] for index in range(40)]
    truncated_image(folder)
    assert_trainable(read_coco(folder.json), folder.path)
    first, second = training_examples(folder), training_examples(folder)
    second.preload()
    found = [[data[index] for index in order] for data, order in ((first, range(40)), (second, range(39, -1, -1)))]
    redrawn = [index for index, example in enumerate(found[0]) if example["redrawn"] == 1]
    assert 5 < len(redrawn) < 35
    for index, (a, b, old) in enumerate(zip(found[0], found[1][::-1], before, strict=True)):
        assert all(torch.equal(a[key], b[key]) for key in a)
        assert torch.equal(a["patch"], old["patch"]) == (index not in redrawn)
        assert a["has_mask"] == old["has_mask"] and a["label"] == old["label"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and all("001.png" in line and "passed over" in line for line in told)
    with pytest.raises(DataError, match=r"001\.png"):  # a validation measures what it is asked to
        training_examples(folder, training=False, batches="mask", length=3)[0]


def test_training_stops_where_damaged_photos_are_no_exception(folder: Folder) -> None:
    for _ in range(40):
        folder.scene((60, 80), (10, 12, 30, 20))
    for number in range(2, 40):
        (folder.path / f"{number:03d}.png").unlink()
    with pytest.raises(DataError, match=r"more than 10 photos cannot be read.*012\.png.*sharpmask check"):
        training_examples(folder).preload()
