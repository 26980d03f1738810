"""Rescaling, padding and tiles."""

import numpy as np
import pytest
import torch
from PIL import Image

from sharpmask.errors import ConfigError
from sharpmask.proposals.pyramid import Tile, iterate_tiles, rescale, rescale_part, scale_exponents

CPU = torch.device("cpu")


def noise(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def tiles_of(image: np.ndarray, exponents: tuple[float, ...], **options: int) -> list[Tile]:
    return list(iterate_tiles(image, exponents, patch_size=160, stride=16, device=CPU, **options))


def test_scale_exponents() -> None:
    assert scale_exponents() == (-2.5, -2, -1.5, -1, -0.5, 0, 0.5)
    assert scale_exponents(1)[-2:] == (0.5, 1)
    assert scale_exponents(2)[-3:] == (0.5, 1, 1.5)
    assert scale_exponents(2, zoom2_exponent=2)[-1] == 2
    assert scale_exponents(1, [0, -1, 1, 0]) == (-1, 0, 1)
    assert scale_exponents(patch_size=224) == (-2, -1.5, -1, -0.5, 0, 0.5, 1)  # the DeepMask paper's own
    assert scale_exponents(1, patch_size=112)[-2:] == (0, 0.5)
    assert scale_exponents(1, [0], patch_size=112) == (0, 0.5)
    for arguments in ((3, None), (0, []), (0, [5.0]), (0, [float("nan")])):
        with pytest.raises(ConfigError):
            scale_exponents(*arguments)


@pytest.mark.parametrize("size", [(1, 1), (37, 161), (160, 176)])
def test_padding_and_cells(size: tuple[int, int]) -> None:
    image = noise(*size)
    for tile in tiles_of(image, (-1, 0, 0.5)):
        height, width = tile.grid.rescaled_size
        hp, wp = tile.images.shape[2:]
        assert hp % 16 == 0 and wp % 16 == 0 and tile.images.shape[:2] == (1, 3)
        assert hp - 80 - height >= 80 and wp - 80 - width >= 80
        assert (tile.rows, tile.cols) == (slice(0, height // 16 + 1), slice(0, width // 16 + 1))
        outside = tile.images.clone()
        outside[:, :, 80 : 80 + height, 80 : 80 + width] = 0.5
        assert (outside == 0.5).all()
    at_one = tiles_of(image, (0.0,))[0].images[0, :, 80 : 80 + size[0], 80 : 80 + size[1]]
    np.testing.assert_allclose(at_one.permute(1, 2, 0).numpy() * 255, image, atol=1e-3)


def test_rescale_equals_pillow() -> None:
    image = noise(123, 210)
    for size in ((61, 104), (174, 297), (22, 37)):
        expected = np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
        ours = rescale(image, size, CPU)[0].permute(1, 2, 0).numpy()
        assert np.abs(ours - expected).max() <= 1


def test_part_of_a_rescaled_image() -> None:
    image = noise(223, 310)
    for size in ((111, 154), (315, 438), (39, 54)):
        whole = rescale(image, size, CPU)
        for start, end in [((0, 0), size), ((7, 11), (30, 44)), ((5, 0), (size[0], 50))]:
            part = rescale_part(image, size, start, end)
            expected = whole[:, :, start[0] : end[0], start[1] : end[1]]
            assert (part.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 0.5])
def test_tiles_partition_the_cells_and_show_the_same_pixels(exponent: float) -> None:
    image = noise(700, 900)
    whole = tiles_of(image, (exponent,))[0]
    tiles = tiles_of(image, (exponent,), tile_pixels=512 * 512)
    assert len(tiles) > 1
    owned = np.zeros(whole.grid.cells, int)
    for tile in tiles:
        assert tile.images.shape[2] * tile.images.shape[3] <= 512 * 512
        row, col = tile.first_cell
        owned[row + tile.rows.start : row + tile.rows.stop, col + tile.cols.start : col + tile.cols.stop] += 1
        height, width = tile.images.shape[2:]
        same = whole.images[:, :, 16 * row : 16 * row + height, 16 * col : 16 * col + width]
        assert (tile.images - same).abs().max() <= 2.5 / 255  # two ways of rounding to 8 bits
        assert (tile.images - same).abs().mean() <= 0.05 / 255
        # Real context around the own windows, except at the border of the padded image.
        assert (tile.rows.start == 6 or row == 0) and (tile.cols.start == 6 or col == 0)
        for stop, side, first, cells in (
            (tile.rows.stop, height, row, whole.grid.padded_cells[0]),
            (tile.cols.stop, width, col, whole.grid.padded_cells[1]),
        ):
            count = (side - 160) // 16 + 1
            assert count - stop >= 6 or first + count == cells
    assert (owned == 1).all()


@pytest.mark.parametrize("border", [1, 16, 40, 80])
@pytest.mark.parametrize("exponent", [-2.5, -0.5, 0.0, 0.5])
@pytest.mark.parametrize("tile_pixels", [512 * 512, 10**8])
def test_a_border_leaves_windows_out_and_shows_the_others_the_same(
    border: int, exponent: float, tile_pixels: int
) -> None:
    image = noise(420, 610)
    (full,) = tiles_of(image, (exponent,))
    seen = set()
    for tile in tiles_of(image, (exponent,), border=border, tile_pixels=tile_pixels):
        row, col = tile.first_cell
        height, width = tile.images.shape[2:]
        same = full.images[:, :, 16 * row : 16 * row + height, 16 * col : 16 * col + width]
        assert (tile.images - same).abs().max() <= 2.5 / 255
        if tile_pixels == 10**8:
            assert torch.equal(tile.images, same)
        for r in range(tile.rows.start, tile.rows.stop):
            for c in range(tile.cols.start, tile.cols.stop):
                assert 0 <= 16 * r <= height - 160 and 16 * c <= width - 160  # the whole window is there
                assert (r + row, c + col) not in seen
                seen.add((r + row, c + col))
    h, w = full.grid.rescaled_size
    inside = {
        (r, c)
        for r in range(full.grid.cells[0])
        for c in range(full.grid.cells[1])
        if border <= 16 * r <= h - border and border <= 16 * c <= w - border
    }
    if inside:
        assert seen == inside
    else:  # 74 pixels high: the middle row is kept
        assert border > 32 and exponent == -2.5 and {r for r, _ in seen} == {2}
