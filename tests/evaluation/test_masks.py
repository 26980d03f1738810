"""The check of compressed RLEs that keeps damaged ones away from pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from sharpmask.evaluation.masks import box_ious, first_broken, mask_boxes, mask_ious, to_rle


def random_rles(count: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    rles = []
    for number in range(count):
        height, width = rng.integers(1, 400, 2)
        density = [0.0, 1.0, 0.5, 0.01][number % 4]
        rles.append(mask_utils.encode(np.asfortranarray(rng.random((height, width)) < density, np.uint8)))
    return rles


def test_sound_masks_pass() -> None:
    assert first_broken(random_rles(40)) is None
    assert first_broken([]) is None


@pytest.mark.parametrize("cut", ["end", "middle", "empty", "sign", "bytes", "long"])
def test_damaged_masks_are_found(cut: str) -> None:
    rles = random_rles(12, seed=2)
    counts = rles[6]["counts"]
    rles[6]["counts"] = {
        "end": counts[:-1],
        "middle": counts[:10] + counts[11:],
        "empty": b"",
        "sign": b"O" + counts,
        "bytes": counts[:5] + b"\xff" + counts[6:],
        "long": b"o" * 20 + b"0",
    }[cut]
    assert first_broken(rles) == 6


def write_counts(runs: list[int]) -> bytes:
    """COCO's text form of run lengths, also of impossible ones."""
    text = []
    for position, run in enumerate(runs):
        value, more = run - (runs[position - 2] if position > 2 else 0), True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text.append(48 + group + 32 * more)
    return bytes(text)


def test_runs_that_add_up_but_go_backwards_are_found() -> None:
    for runs, broken in (([60, 10, 20, 10], None), ([60, -10, 50], 0), ([30, 40, 50, -20], 0)):
        rle = {"size": [10, 10], "counts": write_counts(runs)}
        assert first_broken([rle]) == broken
        if broken is None:
            assert int(mask_utils.area(rle)) == 20


def test_all_forms_of_a_segmentation_agree() -> None:
    mask = np.zeros((20, 30), np.uint8, order="F")
    mask[5:10, 4:12] = 1
    expected = mask_utils.encode(mask)
    runs, value, length = [], 0, 0
    for pixel in mask.reshape(-1, order="F"):
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    polygon = [4, 5, 12, 5, 12, 10, 4, 10]
    text = {"size": [20, 30], "counts": expected["counts"].decode()}
    for segmentation in ([polygon], polygon, {"size": [20, 30], "counts": [*runs, length]}, text, expected):
        assert np.array_equal(mask_utils.decode(to_rle(segmentation, 20, 30)), mask)
    assert mask_boxes([expected]).tolist() == [[4, 5, 8, 5]]
    assert mask_utils.area(to_rle([], 20, 30)) == 0


@pytest.mark.parametrize(
    "segmentation", [None, 3, {"size": [20, 30]}, {"counts": "a"}, [[1, 2]], [["a", "b"]], [[float("nan")] * 6]]
)
def test_unreadable_segmentations_are_value_errors(segmentation: object) -> None:
    with pytest.raises(ValueError):
        to_rle(segmentation, 20, 30)


def test_ious_without_one_side() -> None:
    assert mask_ious([], random_rles(2)).shape == (0, 2)
    assert box_ious(np.zeros((3, 4)), np.zeros((0, 4))).shape == (3, 0)
    # pycocotools divides 0 by 0 for two boxes without area
    assert box_ious(np.zeros((1, 4)), np.zeros((1, 4)))[0, 0] == 0
