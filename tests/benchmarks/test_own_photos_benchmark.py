"""One's own photos made from COCO, and both starts from end to end."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sharpmask.errors import ConfigError


@pytest.fixture(scope="module")
def own_photos(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("own_photos")


@pytest.fixture
def annotations(tmp_path: Path) -> str:
    """Ten photos: cups in 3 and 4, a pizza in 5, which is not exhaustive, and dogs everywhere."""
    box = {"iscrowd": 0, "bbox": [1, 1, 5, 5], "area": 25, "segmentation": [[1, 1, 6, 1, 6, 6, 1, 6]]}
    placed = [(n, 1) for n in range(10)] + [(3, 2), (4, 2), (4, 2), (5, 3)]
    content = {
        "images": [
            {"id": n, "file_name": f"{n}.png", "height": 9, "width": 9, "exhaustive": n != 5} for n in range(10)
        ],
        "annotations": [{**box, "id": i, "image_id": n, "category_id": c} for i, (n, c) in enumerate(placed)],
        "categories": [
            {"id": 1, "name": "dog", "supercategory": "animal"},
            {"id": 2, "name": "cup", "supercategory": "kitchen"},
            {"id": 3, "name": "pizza", "supercategory": "food"},
        ],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    return str(tmp_path / "all.json")


def test_photos_of_some_categories(own_photos: ModuleType, annotations: str) -> None:
    found = own_photos.restricted(annotations, ["kitchen", "pizza"], None)
    assert {photo["id"] for photo in found["images"]} == {3, 4}
    assert [a["category_id"] for a in found["annotations"]] == [2, 2, 2]
    assert [c["name"] for c in found["categories"]] == ["cup", "pizza"]
    filled = own_photos.restricted(annotations, ["cup"], 6)
    ids = [photo["id"] for photo in filled["images"]]
    assert len(set(ids)) == 6 and set(ids[:2]) == {3, 4} and 5 not in ids
    assert [a["category_id"] for a in filled["annotations"]] == [2, 2, 2]
    assert filled == own_photos.restricted(annotations, ["cup"], 6)
    with pytest.raises(ConfigError, match="animal"):
        own_photos.restricted(annotations, ["spoon"], 6)


def test_from_end_to_end(own_photos: ModuleType, shapes: Path, shared: Path, tmp_path: Path) -> None:
    trunk = shared / "weights" / "tf_efficientnet_lite0.fp16.safetensors"
    truth, photos = str(shapes / "instances.json"), str(shapes)
    given = [str(tmp_path / "out"), "--annotations", truth, "--images", photos, "--val-annotations", truth]
    given += ["--val-images", photos, "--trunk-weights", str(trunk), "--categories", "a"]
    given += ["--photos", "5", "--steps", "2", "--refine-steps", "1", "--set", "device=cpu", "validation_patches=4"]
    given += ["deepmask.batch_size=2", "sharpmask.batch_size=2"]
    table = own_photos.run(own_photos.parser().parse_args(given))
    assert table.startswith("5 training photos with 5 objects, 6 validation photos with 6; 2 + 1 steps")
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    assert rows[1:4] == ["| from ImageNet", "| from the bundled model", "| the bundled model as it is"]
    assert rows[4:] == [f"{row}, minus from ImageNet" for row in rows[2:4]]
    row = json.loads((tmp_path / "out" / "from-ImageNet" / "ledger.json").read_text())
    assert row["config"] == "finetune" and row["changes"]["deepmask.learning_rate"] == 1e-3
    assert own_photos.run(own_photos.parser().parse_args(given)) == table  # nothing is trained again
