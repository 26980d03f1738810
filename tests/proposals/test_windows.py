"""Where windows and their masks land, against plain arithmetic."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from sharpmask.proposals.windows import CANDIDATE, Grid, paste_windows, rescaled_grid, select_top

EXPONENTS = [-2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5]


def pasted(logits: torch.Tensor, grid: Grid, rows: list[int], cols: list[int], **options: int) -> np.ndarray:
    encoded = paste_windows(logits, grid, np.array(rows), np.array(cols), 0.0, **options)
    return coco_mask.decode(encoded.rles).transpose(2, 0, 1).astype(bool)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("mask_side", [56, 160])
def test_bars_in_the_window_land_where_arithmetic_says(exponent: float, mask_side: int) -> None:
    """An upright and a level bar, neither in the middle, in several windows, some of them over the image's edge."""
    size = (301, 427)
    grid = rescaled_grid(size, exponent, patch_size=160, stride=16)
    left, top, right, bottom = (value * mask_side // 80 for value in (13, 24, 61, 49))
    logits = torch.full((2, mask_side, mask_side), -1.0)
    logits[0, :, left:right] = 1
    logits[1, top:bottom] = 1
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    for row in sorted({0, 1, grid.cells[0] // 2, grid.cells[0] - 1}):
        for col in sorted({0, grid.cells[1] // 3, grid.cells[1] - 1}):
            x0, y0, x1, y1 = grid.windows(np.array([row]), np.array([col]))[0]
            unit_x, unit_y = (x1 - x0) / mask_side, (y1 - y0) / mask_side
            upright = (x0 + left * unit_x, y0, x0 + right * unit_x, y1)
            level = (x0, y0 + top * unit_y, x1, y0 + bottom * unit_y)
            masks = pasted(logits, grid, [row, row], [col, col])
            for mask, bar in zip(masks, (upright, level), strict=True):
                slack = np.minimum(np.minimum(x - bar[0], bar[2] - x), np.minimum(y - bar[1], bar[3] - y))
                assert mask[slack > 0.51].all() and not mask[slack < -0.51].any()


def test_at_scale_one_the_mask_is_copied() -> None:
    grid = rescaled_grid((200, 240), 0, patch_size=160, stride=16)
    logits = torch.randn(1, 160, 160, generator=torch.Generator().manual_seed(0))
    mask = pasted(logits, grid, [6], [7])[0]  # centred at (96, 112): rows 16…176, columns 32…192
    np.testing.assert_array_equal(mask[16:176, 32:192], logits[0].numpy() > 0)
    assert mask.sum() == (logits > 0).sum()


@pytest.mark.parametrize("exponent", [-1, 0])
def test_enlarging_is_bilinear_interpolation(exponent: int) -> None:
    """At 2^-1 the resampling of a whole window equals PyTorch's doubling without aligned corners."""
    grid = rescaled_grid((400, 400), exponent, patch_size=160, stride=16)
    side = int(160 / 2**exponent)
    logits = torch.randn(1, 40, 40, generator=torch.Generator().manual_seed(1))
    expected = torch.nn.functional.interpolate(logits[None], size=(side, side), mode="bilinear")[0, 0] > 0
    row = 6 if exponent == -1 else 10
    x0, y0 = (int(value) for value in grid.windows(np.array([row]), np.array([row]))[0][:2])
    mask = pasted(logits, grid, [row], [row])[0]
    inside = slice(max(0, -y0), min(400 - y0, side)), slice(max(0, -x0), min(400 - x0, side))
    part = mask[max(0, y0) : y0 + side, max(0, x0) : x0 + side]
    assert (part != expected.numpy()[inside]).mean() < 1e-3  # ties of rounding only


def test_shrinking_uses_every_mask_pixel() -> None:
    """A pattern finer than image pixels must come out as its average and not as aliases."""
    grid = rescaled_grid((100, 100), 1.5, patch_size=160, stride=16)
    logits = torch.full((1, 160, 160), -1.0)
    logits[:, :, ::2] = 3  # average + 1 everywhere
    mask = pasted(logits, grid, [8], [8])[0]
    first, last = grid.covered_pixels(np.array([8]), 1)
    assert mask[first[0] : last[0], first[0] : last[0]].mean() > 0.9


def test_true_factors_leave_no_drift_at_the_far_edge() -> None:
    """101 px at 2^-2.5 become 18, a factor of 0.1782 and not 0.1768: the last window must still end at the image's
    far edge as seen in the rescaled image. With the nominal factor it would be 0.8 px off."""
    grid = rescaled_grid((101, 4), -2.5, patch_size=160, stride=2)
    assert grid.rescaled_size == (18, 1)
    assert grid.factors == (18 / 101, 1 / 4)
    window = grid.windows(np.array([9]), np.array([0]))[0]  # centre at rescaled row 18, the very edge
    assert (window[1] + window[3]) / 2 == pytest.approx(101)
    logits = torch.full((1, 160, 160), -1.0)
    logits[:, 80 - 3 : 80] = 1  # the last three rescaled rows
    rows = np.flatnonzero(pasted(logits, grid, [9], [0])[0].any(axis=1))
    assert rows[-1] == 100
    assert abs(rows[0] - 101 * 15 / 18) <= 0.5


@pytest.mark.parametrize(("size", "exponent"), [((1, 1), -2.5), ((1, 1), 1), ((1, 1000), -1), ((3, 2), 0.5)])
def test_tiny_images(size: tuple[int, int], exponent: float) -> None:
    grid = rescaled_grid(size, exponent, patch_size=160, stride=16)
    rows, cols = (np.arange(count) for count in grid.cells)
    rows, cols = (axis.ravel() for axis in np.meshgrid(rows, cols, indexing="ij"))
    masks = pasted(torch.ones(len(rows), 56, 56), grid, list(rows), list(cols))
    assert masks.shape == (len(rows), *size)
    assert masks.any(axis=0).all()  # the windows cover the image


def test_cells_reach_the_far_edge_and_no_further() -> None:
    for side in (160, 161, 175, 176):
        grid = rescaled_grid((side, side), 0, patch_size=160, stride=16)
        assert 16 * (grid.cells[0] - 1) <= side < 16 * grid.cells[0]
        assert 16 * (grid.padded_cells[0] - 1) >= side


def test_chunks_change_nothing() -> None:
    grid = rescaled_grid((220, 310), -0.5, patch_size=160, stride=16)
    logits = torch.randn(40, 56, 56, generator=torch.Generator().manual_seed(2))
    rng = np.random.default_rng(0)
    rows, cols = list(rng.integers(0, grid.cells[0], 40)), list(rng.integers(0, grid.cells[1], 40))
    whole = pasted(logits, grid, rows, cols)
    np.testing.assert_array_equal(whole, pasted(logits, grid, rows, cols, chunk=3))


def test_threshold_is_strict_and_infinities_are_harmless() -> None:
    grid = rescaled_grid((160, 160), 0, patch_size=160, stride=16)
    assert not pasted(torch.zeros(1, 160, 160), grid, [5], [5]).any()
    logits = torch.full((1, 160, 160), -torch.inf)
    logits[:, :80] = torch.inf
    assert pasted(logits, grid, [5], [5])[0].sum() == 80 * 160


def test_no_windows() -> None:
    grid = rescaled_grid((160, 160), 0, patch_size=160, stride=16)
    assert paste_windows(torch.zeros(0, 56, 56), grid, np.zeros(0, int), np.zeros(0, int), 0.0).rles == []


def test_select_top_orders_ties_by_scale_row_and_column() -> None:
    rng = np.random.default_rng(0)
    candidates = np.zeros(500, CANDIDATE)
    for name, high in (("logit", 6), ("scale", 3), ("row", 9), ("col", 9)):
        candidates[name] = rng.integers(0, high, 500)
    keys = [(-c["logit"], c["scale"], c["row"], c["col"]) for c in candidates]
    for count in (1, 60, 499, 500, 1000):
        chosen = select_top(candidates, count)
        assert [(-c["logit"], c["scale"], c["row"], c["col"]) for c in chosen] == sorted(keys)[:count]
