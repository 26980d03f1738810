"""Layouts of data folders."""

from pathlib import Path

import pytest

from sharpmask.errors import ConfigError
from sharpmask.reproduce.datasets import find_data


def lay_out(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
    return root


@pytest.mark.parametrize("year", ["2014", "2017"])
@pytest.mark.parametrize("inside", ["", "images/"])
def test_coco_as_it_is_unpacked(tmp_path: Path, year: str, inside: str) -> None:
    names = [f"annotations/instances_{part}{year}.json" for part in ("train", "val")]
    root = lay_out(tmp_path, *names, f"{inside}train{year}/", f"{inside}val{year}/")
    data = find_data(root)
    assert data.name == f"COCO {year}" and data.train is not None
    assert data.train.annotations == root / names[0] and data.train.images == root / f"{inside}train{year}"
    assert data.val.annotations == root / names[1] and data.val.images == root / f"{inside}val{year}"


def test_a_small_set_and_one_to_measure_on_only(tmp_path: Path) -> None:
    root = lay_out(tmp_path / "mine", "instances_val.json", "val/")
    data = find_data(root)
    assert data.name == "mine" and data.train is None
    lay_out(root, "instances_train.json", "train/")
    assert find_data(root).train is not None


def test_the_folder_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARPMASK_DATA", str(lay_out(tmp_path, "instances_val.json", "val/")))
    assert find_data(None).folder == tmp_path
    monkeypatch.delenv("SHARPMASK_DATA")
    with pytest.raises(ConfigError, match=r"no data: give --data DIR, or set SHARPMASK_DATA"):
        find_data(None)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no data folder"):
        find_data(tmp_path / "nowhere")
    lay_out(tmp_path, "annotations/instances_val2017.json")  # without its photos
    with pytest.raises(ConfigError, match=r"looked for annotations/instances_val2014\.json with val2014/ or images/"):
        find_data(tmp_path)
