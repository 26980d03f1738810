"""coco-mini out of COCO: the right photos and annotations of a made-up COCO, and the list itself against the photos."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sharpmask.errors import DataError


@pytest.fixture(scope="module")
def subset(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("coco_subset")


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two photos of each set, each with two objects."""
    for number, name in enumerate(("train2017", "val2017")):
        (tmp_path / name).mkdir()
        photos = [{"id": 10 * number + i, "file_name": f"{name}-{i}.jpg", "height": 4, "width": 5} for i in (1, 2)]
        annotations = [
            {"id": 100 * photo["id"] + i, "image_id": photo["id"], "category_id": i} for photo in photos for i in (1, 2)
        ]
        for photo in photos:
            (tmp_path / name / str(photo["file_name"])).write_text(str(photo["id"]))
        content = {"images": photos, "annotations": annotations, "categories": [{"id": 1}, {"id": 2}]}
        (tmp_path / f"instances_{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_the_parts(subset: ModuleType, coco: Path) -> None:
    listed = {"train": {"exhaustive": [11], "partly": {"2": [202]}}, "val": {"exhaustive": [1], "partly": {}}}
    for _ in range(2):  # again over what is there
        assert subset.cut(coco, coco, coco / "mini", listed) == {"train": 2, "val": 1}
    train = json.loads((coco / "mini" / "instances_train.json").read_text())
    assert [(photo["id"], photo["exhaustive"]) for photo in train["images"]] == [(2, False), (11, True)]
    assert [annotation["id"] for annotation in train["annotations"]] == [202, 1101, 1102]
    assert (coco / "mini" / "train" / "val2017-1.jpg").read_text() == "11"
    with pytest.raises(DataError, match="has no image 7"):
        subset.cut(coco, coco, coco / "mini", {"val": {"exhaustive": [7], "partly": {}}})


@pytest.mark.parametrize(("part", "photos"), [("train", 1540), ("val", 103)])
def test_the_list_is_that_of_the_photos(subset: ModuleType, shared: Path, part: str, photos: int) -> None:
    lists = json.loads(subset.LIST.read_text())[part]
    content = json.loads((shared / "data" / "coco-mini" / f"instances_{part}.json").read_text())
    assert len(lists["exhaustive"]) + len(lists["partly"]) == len(content["images"]) == photos
    assert lists["exhaustive"] == sorted(photo["id"] for photo in content["images"] if photo["exhaustive"])
    of: dict[str, list[int]] = {key: [] for key in lists["partly"]}
    for annotation in content["annotations"]:
        if str(annotation["image_id"]) in of:
            of[str(annotation["image_id"])].append(annotation["id"])
    assert {key: sorted(ids) for key, ids in of.items()} == lists["partly"]
