"""The reader: what COCO files hold in practice, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_folders import Folder, rectangle
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from sharpmask.data.coco import decode_mask, encode_mask, read_coco, segmentation_fault
from sharpmask.errors import DataError

H, W = 40, 60


def blob() -> np.ndarray:
    """An L without symmetry: rows 5-24, columns 10-14, and rows 20-24, columns 10-29."""
    mask = np.zeros((H, W), dtype=np.uint8)
    mask[5:25, 10:15] = 1
    mask[20:25, 10:30] = 1
    return mask


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": runs if flat[0] == 0 else [0, *runs]}


def compressed(mask: np.ndarray) -> dict[str, Any]:
    rle = mask_api.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


FORMS = {
    "polygons": [rectangle(10, 5, 5, 20), rectangle(10, 20, 20, 5)],
    "uncompressed RLE": uncompressed(blob()),
    "compressed RLE": compressed(blob()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_segmentation_gives_the_same_mask_box_and_area(folder: Folder, form: str) -> None:
    folder.add(folder.photo(np.zeros((H, W, 3), np.uint8)), FORMS[form])
    (annotation,) = folder.read().annotations
    mask = decode_mask(annotation, H, W)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, blob())
    assert annotation.area == blob().sum()
    assert annotation.bbox == (10, 5, 20, 20)


def test_given_values_are_kept_and_missing_ones_filled(folder: Folder) -> None:
    image_id = folder.photo(np.zeros((H, W, 3), np.uint8))
    folder.add(image_id, FORMS["polygons"], bbox=[1, 2.5, 3, 4], area=7.5, iscrowd=1)
    missing = folder.add(image_id, FORMS["polygons"], area=0, bbox=[])
    del missing["iscrowd"]
    given_one, filled = folder.read().annotations
    assert (given_one.bbox, given_one.area, given_one.iscrowd) == ((1, 2.5, 3, 4), 7.5, True)
    assert (filled.bbox, filled.area, filled.iscrowd) == ((10, 5, 20, 20), blob().sum(), False)


def test_images_categories_and_groups(folder: Folder) -> None:
    first = folder.photo(np.zeros((H, W, 3), np.uint8))
    second = folder.photo(np.zeros((H, W, 3), np.uint8), exhaustive=False)
    folder.add(second, FORMS["polygons"], category_id=90)
    folder.add(second, FORMS["polygons"], category_id=3)
    dataset = folder.read()
    assert dataset.categories == {1: "thing 1", 3: "thing 3", 90: "thing 90"}
    assert dataset.image_by_id[first].exhaustive and not dataset.image_by_id[second].exhaustive
    assert (dataset.image_by_id[first].height, dataset.image_by_id[first].width) == (H, W)
    assert dataset.annotations_of[first] == ()
    assert [annotation.category_id for annotation in dataset.annotations_of[second]] == [90, 3]


def test_a_polygon_without_the_outer_list_is_understood(folder: Folder) -> None:
    folder.add(folder.photo(np.zeros((H, W, 3), np.uint8)), rectangle(10, 5, 5, 20))
    (annotation,) = folder.read().annotations
    assert decode_mask(annotation, H, W).sum() == 100


def test_a_polygon_far_outside_is_cut_at_the_image(folder: Folder) -> None:
    folder.add(folder.photo(np.zeros((H, W, 3), np.uint8)), [rectangle(10, 5, 1e9, 5)])
    (annotation,) = folder.read().annotations
    expected = np.zeros((H, W), np.uint8)
    expected[5:10, 10:] = 1
    np.testing.assert_array_equal(decode_mask(annotation, H, W), expected)


BAD_SEGMENTATIONS = {
    "nothing": None,
    "empty list": [],
    "two corners": [[1, 2, 3, 4]],
    "odd number": [[1, 2, 3, 4, 5, 6, 7]],
    "words": [["a", "b", "c", "d", "e", "f"]],
    "RLE of another size": uncompressed(np.zeros((W, H), np.uint8)),
    "RLE without counts": {"size": [H, W]},
    "RLE whose counts sum to too much": {"size": [H, W], "counts": [10, H * W]},
    "RLE with a negative count": {"size": [H, W], "counts": [-10, H * W + 10]},
    "RLE of fractions": {"size": [H, W], "counts": [0.5, H * W - 0.5]},
    "compressed RLE cut off": {"size": [H, W], "counts": compressed(blob())["counts"][:-1]},
    "compressed RLE that never ends": {"size": [H, W], "counts": "ooo"},
    "compressed RLE of other letters": {"size": [H, W], "counts": "äöü"},
    "compressed RLE without letters": {"size": [H, W], "counts": ""},
}


@pytest.mark.parametrize("kind", BAD_SEGMENTATIONS)
def test_bad_segmentations_are_named_when_decoded(folder: Folder, kind: str) -> None:
    folder.add(folder.photo(np.zeros((H, W, 3), np.uint8)), BAD_SEGMENTATIONS[kind])
    (annotation,) = folder.read().annotations
    assert annotation.area == 0
    assert segmentation_fault(annotation, H, W)
    with pytest.raises(DataError, match="annotation 1"):
        decode_mask(annotation, H, W)


@settings(max_examples=60, deadline=None)
@given(bits=st.integers(0, 2**48 - 1), invert=st.booleans())
def test_compressed_rle_of_any_mask_passes_the_check_of_its_counts(
    tmp_path_factory: pytest.TempPathFactory, bits: int, invert: bool
) -> None:
    mask = np.array([bits >> place & 1 for place in range(48)], np.uint8).reshape(6, 8).repeat(9, 0).repeat(50, 1)
    mask = 1 - mask if invert else mask
    folder = Folder(tmp_path_factory.getbasetemp())
    folder.images = [{"id": 1, "file_name": "a.png", "height": 54, "width": 400}]
    folder.add(1, compressed(mask))
    (annotation,) = folder.read().annotations
    np.testing.assert_array_equal(decode_mask(annotation, 54, 400), mask)
    assert encode_mask(annotation, 54, 400)["size"] == [54, 400]


WRONG_FILES = {
    "no JSON": ("{", "no valid JSON"),
    "COCO results": ("[]", "results"),
    "a number": ("3", "instances"),
    "no annotations": ('{"images": [], "categories": []}', "annotations"),
    "no categories": ('{"images": [], "annotations": []}', "categories"),
    "images as dict": ('{"images": {}, "annotations": [], "categories": []}', "images"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_other_files_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    text, hint = WRONG_FILES[kind]
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"some\.json.*{hint}"):
        read_coco(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json"):
        read_coco(tmp_path / "absent.json")


WRONG_RECORDS = {
    "image without id": ("images", {"file_name": "a.jpg", "height": 4, "width": 4}),
    "image without size": ("images", {"id": 1, "file_name": "a.jpg"}),
    "image of no extent": ("images", {"id": 1, "file_name": "a.jpg", "height": 0, "width": 4}),
    "image with a text id": ("images", {"id": "x", "file_name": "a.jpg", "height": 4, "width": 4}),
    "image without name": ("images", {"id": 1, "file_name": None, "height": 4, "width": 4}),
    "image that is a text": ("images", "a.jpg"),
    "category without id": ("categories", {"name": "cat"}),
    "annotation without image": ("annotations", {"id": 1, "category_id": 1}),
    "annotation with a short box": ("annotations", {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2]}),
    "image with a number too large": ("images", {"id": 10**400, "file_name": "a.jpg", "height": 4, "width": 4}),
    "image with a word for a truth value": (
        "images",
        {"id": 1, "file_name": "a.jpg", "height": 4, "width": 4, "exhaustive": "false"},
    ),
    "annotation with a word for a truth value": (
        "annotations",
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": "0"},
    ),
    "annotation with NaN": ("annotations", {"id": 1, "image_id": 1, "category_id": 1, "area": float("nan")}),
}


@pytest.mark.parametrize("kind", WRONG_RECORDS)
def test_wrong_records_raise_or_are_reported_and_skipped(tmp_path: Path, kind: str) -> None:
    key, entry = WRONG_RECORDS[kind]
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": []}
    content[key].append(entry)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"a\.json: {key}\[0\]"):
        read_coco(path)
    faults: list[str] = []
    dataset = read_coco(path, on_fault=faults.append)
    assert len(faults) == 1
    assert not dataset.images and not dataset.annotations and not dataset.categories
