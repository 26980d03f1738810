"""Folds share no photo, hold all exhaustive ones, and stay the same."""

import dataclasses
from pathlib import Path

import pytest

from sharpmask.data.coco import read_coco
from sharpmask.data.folds import fold_ids, parse_fold, without_photos
from sharpmask.errors import ConfigError


def test_folds_part_the_exhaustive_photos(shapes: Path) -> None:
    dataset = read_coco(shapes / "instances.json")
    first, *rest = dataset.images
    dataset = dataclasses.replace(dataset, images=(dataclasses.replace(first, exhaustive=False), *rest))
    folds = [fold_ids(dataset, f"{part}/2") for part in (1, 2)]
    assert sorted(map(len, folds)) == [2, 3] and not folds[0] & folds[1]
    assert folds[0] | folds[1] == {record.id for record in rest}
    # The order of the file does not matter.
    assert fold_ids(dataclasses.replace(dataset, images=dataset.images[::-1]), "1/2") == folds[0]
    left = without_photos(dataset, folds[0])
    assert {record.id for record in left.images} == {record.id for record in dataset.images} - folds[0]
    assert {a.image_id for a in left.annotations} == {record.id for record in left.images}


@pytest.mark.parametrize("text", ["1", "0/3", "4/3", "1/1", "a/b", "1/3/5"])
def test_what_is_no_fold(text: str) -> None:
    with pytest.raises(ConfigError, match=f"fold '{text}'"):
        parse_fold(text)


def test_more_folds_than_photos(shapes: Path) -> None:
    with pytest.raises(ConfigError, match="has only 6 exhaustively annotated photos"):
        fold_ids(read_coco(shapes / "instances.json"), "1/7")
