"""The sparse resampling against a dense one that computes every pixel, and its two array libraries with each other."""

import tracemalloc

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from sharpmask.proposals import outlines
from sharpmask.proposals.outlines import window_toggles
from sharpmask.proposals.windows import Grid, paste_windows, rescaled_grid


def smooth_logits(count: int, side: int, seed: int) -> torch.Tensor:
    """Blobs of both signs with some noise, so that outlines are long and cross the windows' borders."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 1, 6, 6, generator=generator)
    blobs = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[:, 0]
    return blobs + 0.1 * torch.randn(count, side, side, generator=generator)


def dense_values(logits: np.ndarray, grid: Grid, row: int, col: int) -> np.ndarray:
    """The resampled logits of one window over the whole image, float64; NaN where the window does not reach."""
    side = logits.shape[-1]
    weights = []
    for axis, cell in ((0, row), (1, col)):
        factor = grid.factors[axis]
        begin = (grid.stride * cell - grid.patch_size / 2) / factor
        end = (grid.stride * cell + grid.patch_size / 2) / factor
        centre = np.arange(grid.image_size[axis]) + 0.5
        step = factor * side / grid.patch_size
        distance = np.abs(np.arange(side) + 0.5 - ((centre - begin) * step)[:, None])
        weight = (1 - distance / max(1, step)).clip(min=0)
        weight /= weight.sum(axis=1, keepdims=True).clip(min=1e-6)
        weight[(centre < begin) | (centre >= end)] = np.nan
        weights.append(weight)
    return weights[0] @ logits.astype(np.float64) @ weights[1].T


CASES = [
    ((197, 231), exponent, side) for exponent in (-2.5, -1.5, -1, -0.3, 0, 0.5, 1, 1.5, 2.2) for side in (160, 56, 7)
]
# Heights that rounding keeps while the width shrinks or grows: one axis is enlarged and the other made smaller.
CASES += [((1, 300), -2, 160), ((1, 90), 0.4, 160), ((300, 3), 0.4, 160), ((2, 2), 0.6, 56), ((40, 1), 1.5, 160)]


@pytest.mark.parametrize(("size", "exponent", "side"), CASES)
@pytest.mark.parametrize("threshold", [0.0, -1.386])
def test_equals_the_dense_resampling(size: tuple[int, int], exponent: float, side: int, threshold: float) -> None:
    grid = rescaled_grid(size, exponent, patch_size=160, stride=16)
    cells = [(r, c) for r in range(grid.cells[0]) for c in range(grid.cells[1])]
    cells = [cells[i] for i in np.random.default_rng(0).permutation(len(cells))[:12]]
    rows, cols = (np.array(axis) for axis in zip(*cells, strict=True))
    logits = smooth_logits(len(cells), side, seed=side)
    masks = coco_mask.decode(paste_windows(logits, grid, rows, cols, threshold).rles).transpose(2, 0, 1).astype(bool)
    some = False
    for mask, window, row, col in zip(masks, logits.numpy(), rows, cols, strict=True):
        values = dense_values(window, grid, int(row), int(col)) - threshold
        expected = np.nan_to_num(values, nan=-1) > 0
        # Only what rounding decides may differ.
        assert np.abs(values[mask != expected]).max(initial=0) < 1e-5
        assert (mask != expected).mean() < 1e-3
        some |= bool(expected.any() and not expected.all())
    assert some or size[0] * size[1] < 10


@pytest.mark.parametrize("exponent", [-1.5, 0, 0.5])
def test_the_same_on_tensors_as_on_arrays(exponent: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs on a GPU, run here on tensors of the CPU."""
    grid = rescaled_grid((97, 131), exponent, patch_size=160, stride=16)
    rows, cols = np.array([0, 1, 2, 1, 0]), np.array([1, 0, 1, 2, 2])
    logits = smooth_logits(5, 56, seed=1)
    spans = grid.spans(rows, 0, 56), grid.spans(cols, 1, 56)
    monkeypatch.setattr(outlines, "_PIECE", 50)  # in several pieces
    arrays = window_toggles(logits, *spans, 0.0, grid.image_size)
    tensors = outlines._between_mask_pixels(logits, *spans, 0.0, grid.image_size)
    np.testing.assert_array_equal(arrays, tensors)
    every_pixel = outlines._at_image_pixels(logits, *spans, 0.0, grid.image_size)
    np.testing.assert_array_equal(every_pixel, outlines._at_image_pixels(logits.numpy(), *spans, 0.0, grid.image_size))
    assert len(arrays) > 20 and len(every_pixel) > 20
    stability = outlines.window_stability(logits, *spans, 0.0, 0.3, grid.image_size)
    monkeypatch.setattr(outlines, "_as_array", lambda tensor: tensor)
    np.testing.assert_array_equal(stability, outlines.window_stability(logits, *spans, 0.0, 0.3, grid.image_size))


def test_numbers_that_are_none_belong_to_no_mask() -> None:
    for exponent in (-1, 0, 1):
        grid = rescaled_grid((60, 60), exponent, patch_size=160, stride=16)
        logits = torch.full((1, 160, 160), torch.nan)
        assert paste_windows(logits, grid, np.array([1]), np.array([1]), 0.0).areas.tolist() == [0]
        logits[:, :, 80:] = 1.0
        assert paste_windows(logits, grid, np.array([1]), np.array([1]), 0.0).areas[0] > 0


@pytest.mark.parametrize(("exponent", "side", "tolerance"), [(0, 160, 1e-6), (-0.5, 56, 0.02), (0.5, 160, 0.02)])
def test_stability_is_the_ratio_of_two_thresholds(exponent: float, side: int, tolerance: float) -> None:
    """Of the mask's own pixels: exact where they are the image's. All windows reach beyond the image."""
    grid = rescaled_grid((97, 131), exponent, patch_size=160, stride=16)
    rows, cols = np.array([0, 2, 3]), np.array([1, 2, 0])
    logits = smooth_logits(3, side, seed=3)
    logits[2] = -50
    found = paste_windows(logits, grid, rows, cols, 0.0, stability_offset=0.3)
    high, low = (paste_windows(logits, grid, rows, cols, offset).areas for offset in (0.3, -0.3))
    assert found.stability is not None and found.stability.dtype == np.float32
    np.testing.assert_allclose(found.stability, high / np.maximum(low, 1), atol=tolerance)
    assert 0 < found.stability[0] < 1 and found.stability[2] == 0


def test_memory_grows_with_the_windows_and_not_with_the_image() -> None:
    """40 masks of an image of 100 megapixels would be 4 GB as full-size arrays."""
    peaks = []
    for size in ((500, 500), (10_000, 10_000)):
        grid = rescaled_grid(size, 0, patch_size=160, stride=16)
        cells = np.arange(5, 25)
        tracemalloc.start()
        encoded = paste_windows(smooth_logits(20, 160, seed=0), grid, cells, cells, 0.0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (encoded.areas > 0).all()
    assert peaks[1] < 1.2 * peaks[0] < 40e6
