"""The synthetic data set: what is drawn is what is annotated."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from sharpmask.cli.main import main
from sharpmask.data.check import check
from sharpmask.data.sample import HEIGHT, KINDS, WIDTH, draw_scene, write_sample
from sharpmask.errors import ConfigError


def test_scenes_have_visible_objects_that_do_not_share_pixels() -> None:
    for seed in range(8):
        scene = draw_scene(np.random.default_rng(seed))
        assert scene.photo.shape == (HEIGHT, WIDTH, 3) and 3 <= len(scene.masks) == len(scene.kinds) <= 8
        assert all(mask.sum() >= 150 for mask in scene.masks)
        assert sum(mask.astype(int) for mask in scene.masks).max() == 1


def test_masks_lie_on_what_was_drawn() -> None:
    """Across an outline the colour changes more than between neighbours elsewhere."""
    steps, plain = [], []
    for seed in range(6):
        scene = draw_scene(np.random.default_rng(seed))
        pixels = scene.photo.astype(float).mean(axis=2)
        change = np.abs(pixels[:, 4:] - pixels[:, :-4])
        labels = sum(mask * place for place, mask in enumerate(scene.masks, 1))
        crossed = labels[:, 4:] != labels[:, :-4]
        steps.append(change[crossed].mean())
        plain.append(change[~crossed].mean())
    assert np.mean(steps) > 1.1 * np.mean(plain)


def test_files_are_sound_and_the_seed_decides(tmp_path: Path) -> None:
    train, val = write_sample(tmp_path / "a", train=3, val=2, seed=5)
    assert check(train, tmp_path / "a/train").counts == check(val, tmp_path / "a/val").counts == {}
    coco = COCO(train)
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        assert mask.sum() == annotation["area"]
        x, y, width, height = map(int, annotation["bbox"])
        assert mask[y : y + height, x : x + width].sum() == mask.sum()
    assert [category["name"] for category in coco.dataset["categories"]] == list(KINDS)
    write_sample(tmp_path / "b", train=3, val=2, seed=5)
    write_sample(tmp_path / "c", train=3, val=2, seed=6)
    same, other = (json.loads((tmp_path / name / "train.json").read_text()) for name in ("b", "c"))
    assert same == json.loads(train.read_text()) != other
    photos = ("a/train/001.jpg", "b/train/001.jpg", "a/val/001.jpg")
    first = [np.asarray(Image.open(tmp_path / name)) for name in photos]
    assert (first[0] == first[1]).all() and (first[0] != first[2]).any()


def test_command_and_bad_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(tmp_path / "new"), "--train", "1", "--val", "1"]) == 0
    assert "1 and 1 photos" in capsys.readouterr().out
    (tmp_path / "file").touch()
    assert main(["sample", str(tmp_path / "file")]) == 2
    assert "cannot make the folder" in capsys.readouterr().err
    for change in ({"train": 0}, {"val": 0}, {"seed": -1}):
        with pytest.raises(ConfigError, match="photos must be at least 1"):
            write_sample(tmp_path, **change)
