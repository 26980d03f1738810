"""The stream of examples: what is in it, and that it is a pure function of (seed, index)."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coco_folders import GROUND, OBJECT, Folder, rectangle
from torch.utils.data import DataLoader

from sharpmask.data.augment import Augmentation, blend, vary_colour
from sharpmask.data.coco import CocoDataset
from sharpmask.data.examples import ExampleDataset
from sharpmask.data.geometry import GREY, CanonicalGeometry
from sharpmask.data.stream import StreamSampler
from sharpmask.errors import ConfigError, DataError

STILL = dataclasses.replace(CanonicalGeometry(), shift=0.0, scale_jitter=0.0, flip=0.0)


def examples(folder: Folder, **options: Any) -> ExampleDataset:
    return ExampleDataset(
        **{"dataset": folder.read(), "image_dir": folder.path, "seed": 5, "length": 4000, "batch_size": 8, **options}
    )


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def seen(example: dict[str, torch.Tensor]) -> np.ndarray:
    """The bright object in the inner 160 pixels of the patch."""
    return example["patch"][0, 16:176, 16:176].numpy() > (GROUND + OBJECT) / 2


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.fixture
def three_scenes(folder: Folder) -> Folder:
    folder.scene((120, 160), (30, 20, 60, 25))
    folder.scene((160, 120), (70, 60, 50, 90))  # touches the right border
    folder.scene((100, 100), (40, 45, 12, 18))
    return folder


def test_shapes_types_and_collation(three_scenes: Folder) -> None:
    for side in (160, 112):
        batch = next(iter(DataLoader(examples(three_scenes, batches="joint", mask_side=side), batch_size=8)))
        assert batch["patch"].shape == (8, 3, 192, 192) and batch["patch"].dtype == torch.uint8
        assert batch["mask"].shape == (8, side, side) and batch["mask"].dtype == torch.uint8
        assert set(batch["mask"].unique().tolist()) == {0, 1}
        for key in ("label", "has_mask", "has_score"):
            assert batch[key].shape == (8,) and batch[key].dtype == torch.float32


def test_positives_show_what_the_mask_says(three_scenes: Folder) -> None:
    data = examples(three_scenes, batches="mask")
    for index in range(40):
        example = data[index]
        assert iou(seen(example), example["mask"].numpy() > 0) > 0.97


def test_without_jitter_the_object_is_canonical(three_scenes: Folder) -> None:
    data = examples(three_scenes, batches="mask", geometry=STILL)
    for index in range(12):
        mask = data[index]["mask"].numpy()
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        extents = [int(lines[-1] + 1 - lines[0]) for lines in (rows, columns)]
        assert max(extents) == pytest.approx(92, abs=1)
        assert (rows[-1] + 1 + rows[0]) / 2 == pytest.approx(80, abs=0.5)
        assert (columns[-1] + 1 + columns[0]) / 2 == pytest.approx(80, abs=0.5)


def test_the_flip_mirrors_patch_and_mask(three_scenes: Folder) -> None:
    plain = examples(three_scenes, batches="mask", geometry=STILL)
    mirrored = examples(three_scenes, batches="mask", geometry=dataclasses.replace(STILL, flip=1.0))
    for index in range(6):
        assert torch.equal(plain[index]["patch"].flip(2), mirrored[index]["patch"])
        assert torch.equal(plain[index]["mask"].flip(1), mirrored[index]["mask"])
    half = examples(three_scenes, batches="mask", geometry=dataclasses.replace(STILL, flip=0.5))
    flipped = sum(not torch.equal(half[index]["patch"], plain[index]["patch"]) for index in range(60))
    assert 15 < flipped < 45


def test_an_example_depends_on_seed_and_index_alone(three_scenes: Folder) -> None:
    options = {"batches": "joint", "augmentation": Augmentation(colour=0.3, grayscale=0.3, copy_paste=0.7)}
    first, second = examples(three_scenes, **options), examples(three_scenes, **options, cache_bytes=0)
    forward = [first[index] for index in range(16)]
    backward = [second[index] for index in reversed(range(16))][::-1]
    assert all(equal(one, other) for one, other in zip(forward, backward, strict=True))
    other_seed = examples(three_scenes, **options, seed=6)
    assert not any(equal(forward[index], other_seed[index]) for index in range(16))
    assert not any(equal(forward[index], forward[index + 2]) for index in range(14))
    assert second.photos.used_bytes == 0 and first.photos.used_bytes > 0


def test_workers_and_resuming_see_the_same_stream(three_scenes: Folder) -> None:
    data = examples(three_scenes, batches="alternate")

    def batches(start: int, steps: int, workers: int) -> list[dict[str, torch.Tensor]]:
        sampler = StreamSampler(start_step=start, steps=steps, batch_size=8)
        return list(DataLoader(data, batch_size=8, sampler=sampler, num_workers=workers))

    alone = batches(0, 4, 0)
    pairs = zip(batches(0, 2, 2) + batches(2, 2, 2), alone, strict=True)
    assert all(equal(one, other) for one, other in pairs)


def test_alternate_batches_are_all_mask_or_all_score(three_scenes: Folder) -> None:
    data = examples(three_scenes, batches="alternate")
    kinds = Counter()
    for step in range(12):
        batch = [data[index] for index in range(step * 8, step * 8 + 8)]
        flags = {(float(each["has_mask"]), float(each["has_score"])) for each in batch}
        assert len(flags) == 1
        kind = data.step_kind(step)
        kinds[kind] += 1
        assert flags == ({(1.0, 0.0)} if kind == "mask" else {(0.0, 1.0)})
        if kind == "score":
            assert sum(float(each["label"]) for each in batch) == 4
        else:
            assert all(each["mask"].any() for each in batch)
    assert kinds.keys() == {"mask", "score"}
    many = Counter(data.step_kind(step) for step in range(2000))
    assert 900 < many["mask"] < 1100


def test_joint_batches_are_half_positive_and_positives_carry_both(three_scenes: Folder) -> None:
    data = examples(three_scenes, batches="joint")
    for index in range(16):
        example = data[index]
        positive = index % 2 == 0
        assert float(example["label"]) == float(example["has_mask"]) == positive
        assert float(example["has_score"]) == 1
        assert bool(example["mask"].any()) == positive
        if not positive:
            # a canonical object in the centre would fill it
            assert not seen(example)[60:100, 60:100].all() or not seen(example).any()


def test_categories_are_drawn_alike(folder: Folder) -> None:
    image_id = folder.photo(np.full((200, 200, 3), GROUND, np.uint8))
    for number in range(9):
        folder.add(image_id, [rectangle(10 * number, 10, 30, 30)], category_id=1)
    folder.add(image_id, [rectangle(10, 100, 30, 30)], category_id=90)
    rng = np.random.default_rng(0)
    for balance, share in (("category", 0.5), ("annotation", 0.1)):
        data = examples(folder, balance=balance)
        drawn = Counter(data._draw_positive(rng).category_id for _ in range(2000))
        assert drawn[90] / 2000 == pytest.approx(share, abs=0.04)


def test_crowds_small_objects_and_dangling_annotations_are_no_positives(folder: Folder) -> None:
    image_id = folder.photo(np.full((200, 200, 3), GROUND, np.uint8))
    good = folder.add(image_id, [rectangle(10, 10, 30, 30)])
    folder.add(image_id, [rectangle(10, 10, 30, 30)], iscrowd=1)
    folder.add(image_id, [rectangle(10, 10, 9, 9)])  # area 81
    folder.add(image_id, [rectangle(10, 10, 100, 4)])  # a side of 4
    folder.add(image_id, [], bbox=[10, 10, 30, 30], area=900)
    folder.add(77, [rectangle(10, 10, 30, 30)], bbox=[10, 10, 30, 30], area=900)
    assert [annotation.id for annotation in examples(folder).positives] == [good["id"]]


def test_images_not_exhaustive_give_masks_but_no_negatives(folder: Folder) -> None:
    folder.scene((120, 160), (30, 20, 60, 25), exhaustive=False)
    with pytest.raises(DataError, match="exhaustive"):
        examples(folder, batches="joint")
    assert examples(folder, batches="mask")[0]["mask"].any()
    exhaustive = folder.scene((120, 160), (30, 20, 60, 25))
    data = examples(folder, batches="joint")
    assert data.negatives is not None and data.negatives.image_ids == [exhaustive]


def test_validation_examples_are_every_object_once_and_still(three_scenes: Folder) -> None:
    options = {"training": False, "length": None, "augmentation": Augmentation(colour=0.5, copy_paste=1.0)}
    masks = examples(three_scenes, batches="mask", **options)
    assert len(masks) == 3
    joint = examples(three_scenes, batches="joint", **options)
    assert len(joint) == 6
    for number in range(3):
        assert torch.equal(masks[number]["patch"], joint[2 * number]["patch"])
        mask = masks[number]["mask"].numpy()
        assert iou(seen(masks[number]), mask > 0) > 0.97
        assert max(np.ptp(np.nonzero(mask)[axis]) + 1 for axis in (0, 1)) == pytest.approx(92, abs=1)
        assert float(joint[2 * number + 1]["label"]) == 0
    with pytest.raises(IndexError):
        masks[3]


@pytest.mark.parametrize("augmentation", [Augmentation(colour=0.3), Augmentation(copy_paste=1.0)], ids=str)
def test_augmentation_leaves_the_padding_grey(three_scenes: Folder, augmentation: Augmentation) -> None:
    plain = examples(three_scenes, batches="mask", geometry=STILL)
    varied = examples(three_scenes, batches="mask", geometry=STILL, augmentation=augmentation)
    changed = padded = 0
    for index in range(12):
        before, after = plain[index], varied[index]
        if augmentation.colour:
            assert torch.equal(before["mask"], after["mask"])
        grey = (before["patch"] == GREY).all(dim=0)
        assert (after["patch"][:, grey.all(dim=1)] == GREY).all()
        assert (after["patch"][:, :, grey.all(dim=0)] == GREY).all()
        padded += bool(grey.all(dim=1).any() or grey.all(dim=0).any())
        changed += not torch.equal(before["patch"], after["patch"])
    assert changed >= 8 and padded > 2


def test_grayscale_has_equal_channels() -> None:
    patch = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    grey = vary_colour(patch, np.random.default_rng(0), Augmentation(grayscale=1.0))
    assert (grey[..., 0] == grey[..., 1]).all() and (grey[..., 0] == grey[..., 2]).all()


def test_blend_is_exact_at_its_ends() -> None:
    rng = np.random.default_rng(0)
    below, above = (rng.integers(0, 256, (10, 10, 3)).astype(np.uint8) for _ in range(2))
    np.testing.assert_array_equal(blend(below, above, np.zeros((10, 10), np.uint8)), below)
    np.testing.assert_array_equal(blend(below, above, np.full((10, 10), 255, np.uint8)), above)


def test_a_pasted_object_takes_its_pixels_out_of_the_mask(folder: Folder) -> None:
    """Targets are bright, pasted objects black: what is left bright must be what is left of the mask."""
    folder.scene((200, 260), (90, 60, 90, 70))
    pixels = np.full((200, 200, 3), GROUND, np.uint8)
    pixels[50:110, 40:120] = 0
    donor = folder.photo(pixels)
    folder.add(donor, [rectangle(40, 50, 80, 60)], category_id=3)
    options = {"batches": "mask", "geometry": STILL}
    plain = examples(folder, **options)
    pasted = examples(folder, **options, augmentation=Augmentation(copy_paste=1.0))
    shown = covered = 0
    for index in range(90):
        before, after = plain[index], pasted[index]
        if not seen(before).any():
            continue  # the donor is the target
        black = after["patch"][0].numpy() < 20
        shown += black.any()
        lost = before["mask"].numpy() > after["mask"].numpy()
        covered += lost.any()
        assert not (after["mask"].numpy() > before["mask"].numpy()).any()
        assert after["mask"].sum() >= 0.6 * before["mask"].sum()
        if black.any():
            assert iou(seen(after), after["mask"].numpy() > 0) > 0.96
            assert black[90:102, 90:102].sum() == 0 or not black.all()
    assert shown > 15 and covered > 3


def test_negatives_get_pasted_objects_too(three_scenes: Folder) -> None:
    plain = examples(three_scenes, batches="joint", geometry=STILL)
    pasted = examples(three_scenes, batches="joint", geometry=STILL, augmentation=Augmentation(copy_paste=1.0))
    differing = sum(not torch.equal(plain[index]["patch"], pasted[index]["patch"]) for index in range(1, 60, 2))
    assert differing > 5


WRONG_OPTIONS: list[dict[str, Any]] = [
    {"seed": -1},
    {"batches": "both"},
    {"balance": "image"},
    {"batch_size": 7},
    {"mask_side": 0},
    {"length": None},
    {"training": False, "length": 99},
]


@pytest.mark.parametrize(
    "options", [{"colour": 1.5}, {"grayscale": -0.1}, {"copy_paste": 2.0}, {"extra_scale": -1.0}], ids=str
)
def test_augmentation_out_of_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Augmentation(**options)


@pytest.mark.parametrize("options", WRONG_OPTIONS, ids=str)
def test_options_that_make_no_sense_are_refused(three_scenes: Folder, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        examples(three_scenes, **options)


def test_data_without_usable_annotations_are_refused(folder: Folder) -> None:
    folder.scene((50, 50), (10, 10, 4, 4))
    with pytest.raises(DataError, match=r"instances\.json.*mask example"):
        examples(folder)


def test_a_photo_that_vanished_is_named(three_scenes: Folder) -> None:
    data = examples(three_scenes)
    for photo in three_scenes.path.glob("*.png"):
        photo.unlink()
    with pytest.raises(DataError, match=r"\d{3}\.png"):
        data[0]


def test_the_cache_stops_at_its_limit(three_scenes: Folder) -> None:
    limit = 120 * 160 * 3 + 100
    data = examples(three_scenes, cache_bytes=limit)
    assert data.preload() == 1
    for index in range(30):
        data[index]
    assert 0 < data.photos.used_bytes <= limit
    assert examples(three_scenes).preload() == 3


def test_real_photos(coco_mini: Callable[[str], tuple[CocoDataset, Path]]) -> None:
    dataset, image_dir = coco_mini("val")
    data = ExampleDataset(dataset=dataset, image_dir=image_dir, seed=0, length=64, batches="joint")
    for index in range(0, 24, 2):
        mask = data[index]["mask"].numpy()
        rows, columns = np.nonzero(mask)
        extent = max(np.ptp(rows), np.ptp(columns)) + 1
        assert 92 * 2**-0.25 - 4 < extent < 92 * 2**0.25 + 4
        assert abs(float(data[index + 1]["label"])) == 0
