"""The window encoder against pycocotools on the pasted full-size masks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from sharpmask.proposals.rle import encode_windows


def check_against_pycocotools(columns: np.ndarray, lefts: np.ndarray, tops: np.ndarray, size: tuple[int, int]) -> None:
    encoded = encode_windows(columns, lefts, tops, size)
    assert len(encoded.rles) == len(columns)
    for n, window in enumerate(columns):
        pasted = np.zeros(size, np.uint8)
        for x, y in np.argwhere(window):
            pasted[tops[n] + y, lefts[n] + x] = 1
        expected = coco_mask.encode(np.asfortranarray(pasted))
        assert encoded.rles[n]["counts"] == expected["counts"].decode()
        assert encoded.rles[n]["size"] == list(expected["size"])
        assert encoded.areas[n] == pasted.sum()
        x, y, w, h = coco_mask.toBbox(expected)
        assert encoded.boxes[n].tolist() == [x, y, x + w, y + h]


@st.composite
def window_batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    h, w, count = draw(st.integers(1, height)), draw(st.integers(1, width)), draw(st.integers(0, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.0, 0.05, 0.5, 0.95, 1.0]))
    columns = rng.random((count, w, h)) < density
    lefts, tops = rng.integers(0, width - w + 1, count), rng.integers(0, height - h + 1, count)
    return columns, lefts, tops, (height, width)


@settings(max_examples=200, deadline=None)
@given(window_batches())
def test_equals_pycocotools_byte_for_byte(batch: tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, int]]) -> None:
    check_against_pycocotools(*batch)


def test_long_runs_and_many_masks() -> None:
    rng = np.random.default_rng(0)
    columns = rng.random((60, 30, 25)) < 0.7
    lefts, tops = rng.integers(0, 1970, 60), rng.integers(0, 1475, 60)
    check_against_pycocotools(columns, lefts, tops, (1500, 2000))


def test_runs_over_the_image_edge_are_one_run() -> None:
    check_against_pycocotools(np.ones((1, 4, 7), bool), np.array([2]), np.array([0]), (7, 9))


def test_padding_outside_the_image_is_allowed_when_empty() -> None:
    columns = torch.zeros((1, 6, 6), dtype=torch.bool)
    columns[0, :3, :2] = True
    encoded = encode_windows(columns, np.array([5]), np.array([6]), (8, 8))
    assert encoded.boxes[0].tolist() == [5, 6, 8, 8]
    columns[0, 3, 0] = True
    with pytest.raises(ValueError, match="outside the image"):
        encode_windows(columns, np.array([5]), np.array([6]), (8, 8))


def test_no_masks_and_empty_masks() -> None:
    assert encode_windows(np.zeros((0, 5, 5), bool), np.zeros(0), np.zeros(0), (9, 9)).rles == []
    check_against_pycocotools(np.zeros((3, 2, 2), bool), np.zeros(3, int), np.zeros(3, int), (11, 13))


def test_reading_back_runs_and_windows() -> None:
    from sharpmask.proposals.rle import decode_window, encode_runs, runs_of_ones

    rng = np.random.default_rng(2)
    for _ in range(300):
        h, w = (int(side) for side in rng.integers(1, 40, 2))
        mask = rng.random((h, w)) < rng.choice([0, 0.02, 0.5, 0.98, 1])
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        x0, x1 = sorted(rng.integers(0, w + 1, 2))
        y0, y1 = sorted(rng.integers(0, h + 1, 2))
        np.testing.assert_array_equal(decode_window(rle, x0, y0, x1, y1), mask[y0:y1, x0:x1])
        starts, ends = runs_of_ones(rle)
        again = encode_runs(np.zeros(starts.size, np.int64), starts, ends, 1, (h, w))
        assert again.rles[0]["counts"].encode() == rle["counts"] and again.areas[0] == mask.sum()
        assert again.boxes[0, 2:].tolist() == (coco_mask.toBbox(rle)[:2] + coco_mask.toBbox(rle)[2:]).tolist()
