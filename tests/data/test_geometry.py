"""Where a known object lands in the patch, and that patch and mask agree there."""

import dataclasses

import numpy as np
import pytest
from coco_folders import GROUND, OBJECT

from sharpmask.data.geometry import (
    GREY,
    CanonicalGeometry,
    Window,
    centred_window,
    crop,
    crop_mask,
    crop_patch,
    jittered_window,
    restore_padding,
)

GEOMETRY = CanonicalGeometry()


def letter_l(size: tuple[int, int], x: int, y: int, side: int) -> np.ndarray:
    """A thick L without any symmetry, `side` wide and 0.75 `side` high, top left at (x, y): uint8 {0, 1} (H, W)."""
    mask = np.zeros(size, np.uint8)
    height, thick = round(0.75 * side), side // 4
    mask[y : y + height, x : x + thick] = 1
    mask[y + height - thick : y + height, x : x + side] = 1
    return mask


def photo_of(mask: np.ndarray) -> np.ndarray:
    return np.where(mask[..., None] > 0, OBJECT, GROUND).repeat(3, axis=2).astype(np.uint8)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def inner(patch: np.ndarray) -> np.ndarray:
    """The object as it is seen in the patch without context, bool (160, 160)."""
    return patch[16:176, 16:176, 0] > (GROUND + OBJECT) / 2


def test_the_canonical_sizes() -> None:
    assert (GEOMETRY.object_side, GEOMETRY.input_size, GEOMETRY.patch_size) == (92, 192, 160)
    assert GEOMETRY.negative_exponents[0] == -3 and GEOMETRY.negative_exponents[-1] == 2
    assert len(GEOMETRY.negative_exponents) == 21


@pytest.mark.parametrize(("x", "y", "side"), [(200, 100, 24), (31, 57, 92), (150, 120, 301), (7, 300, 11)])
def test_the_longer_side_is_92_and_the_centre_is_the_centre(x: int, y: int, side: int) -> None:
    mask = letter_l((400, 520), x, y, side)
    window = centred_window((x, y, side, round(0.75 * side)), GEOMETRY)
    seen = crop_patch(photo_of(mask), window, GEOMETRY)[..., 0] > (GROUND + OBJECT) / 2
    target = crop_mask(mask, window, GEOMETRY, 160)
    # the object's own pixels are up to 8 patch pixels large here, so edges are compared in their rounding
    for found, offset in ((seen, 0), (target, 16)):
        rows, columns = np.flatnonzero(found.any(1)) + offset, np.flatnonzero(found.any(0)) + offset
        assert columns[-1] + 1 - columns[0] == pytest.approx(92, abs=1)
        assert (columns[-1] + 1 + columns[0]) / 2 == pytest.approx(96, abs=0.5)
        assert rows[-1] + 1 - rows[0] == pytest.approx(92 * round(0.75 * side) / side, abs=1)
        assert (rows[-1] + 1 + rows[0]) / 2 == pytest.approx(96, abs=0.5)


@pytest.mark.parametrize("seed", range(8))
def test_patch_and_mask_agree_under_jitter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    side = int(rng.integers(12, 300))
    x, y = (int(value) for value in rng.integers(0, 500 - side, 2))
    mask = letter_l((500, 500), x, y, side)
    window = jittered_window(centred_window((x, y, side, round(0.75 * side)), GEOMETRY), rng, GEOMETRY, 0.5)
    patch = crop_patch(photo_of(mask), window, GEOMETRY)
    target = crop_mask(mask, window, GEOMETRY, 160)
    assert iou(inner(patch), target > 0) > 0.985
    # and no other alignment is better: neither shifted by a pixel nor mirrored nor transposed
    for other in (np.roll(target, 1, 0), np.roll(target, -1, 0), np.roll(target, 1, 1), np.roll(target, -1, 1)):
        assert iou(inner(patch), other > 0) < iou(inner(patch), target > 0)
    for other in (target[::-1], target[:, ::-1], target.T):
        assert iou(inner(patch), other > 0) < 0.7


def test_subpixel_shifts_show_in_the_grey_values() -> None:
    image = np.zeros((64, 64), np.uint8)
    image[:, 32:] = 200
    # at scale 1 a window a quarter of a pixel further right shows the edge a quarter of a pixel further left
    plain = crop(image, (16, 16, 48, 48), 32, 0)
    moved = crop(image, (16.25, 16, 48.25, 48), 32, 0)
    np.testing.assert_array_equal(plain, image[16:48, 16:48])
    assert moved[:, 15].tolist() == [50] * 32
    assert (moved[:, :15] == 0).all() and (moved[:, 16:] == 200).all()


def test_the_112_target_covers_the_same_window() -> None:
    mask = letter_l((300, 300), 100, 90, 110)
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(60):
        window = Window(*rng.uniform(130, 150, size=2).tolist(), scale=rng.uniform(0.7, 0.9))
        small, large = (crop_mask(mask, window, GEOMETRY, side) for side in (112, 160))
        assert small.shape == (112, 112)
        centres = [[(index.mean() + 0.5) / len(each) for index in np.nonzero(each)] for each in (small, large)]
        differences.append(np.subtract(*centres))
    # one window is off by the rounding of edges to pixels, the mean of many by nothing: half a pixel would be 0.003
    assert np.abs(np.mean(differences, axis=0)).max() < 0.0007


def test_outside_the_image_the_patch_is_grey_and_the_mask_empty() -> None:
    mask = np.ones((50, 80), np.uint8)
    # 2 patch pixels an image pixel, centred at the image's top left corner
    window = Window(0, 0, 2.0)
    patch = crop_patch(photo_of(mask), window, GEOMETRY)
    assert (patch[:95] == GREY).all() and (patch[:, :95] == GREY).all()
    assert (patch[97:191, 97:] == OBJECT).all()
    target = crop_mask(mask, window, GEOMETRY, 160)
    assert not target[:80].any() and not target[:, :80].any()
    assert target[80:, 80:].all()
    beyond = crop_patch(photo_of(mask), Window(-500, 900, 2.0), GEOMETRY)
    assert (beyond == GREY).all()


def test_an_object_cut_by_the_border_is_centred_by_its_visible_box() -> None:
    mask = letter_l((200, 200), 140, 100, 60)
    window = centred_window((140, 100, 60, 45), GEOMETRY)
    patch = crop_patch(photo_of(mask), window, GEOMETRY)
    target = crop_mask(mask, window, GEOMETRY, 160)
    seen = patch[16:176, 16:176, 0] > (GREY + OBJECT) / 2  # its right edge is against the grey
    assert iou(seen, target > 0) > 0.97
    assert (patch[:, 96 + 46 + 2 :] == GREY).all()


def test_jitter_is_uniform_in_its_range() -> None:
    rng = np.random.default_rng(0)
    window = Window(50, 60, 0.5)
    drawn = [jittered_window(window, rng, GEOMETRY) for _ in range(4000)]
    octaves = np.log2([each.scale / window.scale for each in drawn])
    dx = np.array([(each.x - window.x) * each.scale for each in drawn])
    dy = np.array([(each.y - window.y) * each.scale for each in drawn])
    for values, limit in ((octaves, 0.25), (dx, 16), (dy, 16)):
        assert np.abs(values).max() <= limit + 1e-9
        assert np.abs(values).max() > 0.98 * limit
        assert values.mean() == pytest.approx(0, abs=0.05 * limit)
        assert values.std() == pytest.approx(limit / np.sqrt(3), rel=0.05)
    assert abs(np.corrcoef(dx, dy)[0, 1]) < 0.05
    wide = [jittered_window(window, rng, GEOMETRY, extra_scale=0.75).scale for _ in range(1000)]
    assert 0.95 < np.abs(np.log2(np.array(wide) / 0.5)).max() <= 1


def test_huge_windows_are_reduced_first_and_still_agree() -> None:
    mask = letter_l((1500, 2000), 150, 100, 1700)
    window = centred_window((150, 100, 1700, 1265), GEOMETRY)  # no edge halves a pixel
    patch = crop_patch(photo_of(mask), window, GEOMETRY)
    target = crop_mask(mask, window, GEOMETRY, 160)
    assert iou(inner(patch), target > 0) > 0.985
    columns = np.flatnonzero(target.any(0))
    assert columns[-1] + 1 - columns[0] == pytest.approx(92, abs=1)


def test_restored_padding_is_what_lies_outside() -> None:
    geometry = dataclasses.replace(GEOMETRY)
    photo = np.full((90, 70, 3), 200, np.uint8)
    for window in (Window(10.3, 80.2, 1.3), Window(60, 5, 0.4), Window(35, 45, 4.0)):
        patch = crop_patch(photo, window, geometry)
        changed = restore_padding(255 - patch, window, geometry, (90, 70))
        outside = (patch == GREY).all(axis=2)
        assert (changed[outside] == GREY).all()
        assert (changed[(patch == 200).all(axis=2)] == 55).all()
