"""Pictures: what is drawn, and what is left out."""

import numpy as np
import pytest

from sharpmask.proposals.overlay import draw_on, draw_overlay, drawn_mask
from sharpmask.proposals.result import Proposals


@pytest.fixture
def photo() -> np.ndarray:
    return np.full((120, 200, 3), 100, np.uint8)


def squares() -> np.ndarray:
    masks = np.zeros((3, 120, 200), bool)
    masks[0, 20:90, 20:90] = True
    masks[1, 22:90, 20:90] = True  # nearly the same
    masks[2, 30:80, 120:180] = True
    return masks


def test_each_object_is_coloured_once(photo: np.ndarray) -> None:
    masks = squares()
    picture = np.array(draw_overlay(photo, Proposals.from_masks(masks, [0.9, 0.8, 0.7])))
    changed = (picture != photo).any(axis=2)
    np.testing.assert_array_equal(changed, masks[0] | masks[2])
    first, second = picture[25, 25].astype(int), picture[35, 125].astype(int)
    assert np.abs(first - second).sum() > 60
    again = np.array(draw_overlay(photo, Proposals.from_masks(masks, [0.9, 0.8, 0.7])))
    np.testing.assert_array_equal(again, picture)


def test_count_and_nothing(photo: np.ndarray) -> None:
    proposals = Proposals.from_masks(squares(), [0.9, 0.8, 0.7])
    one = np.array(draw_overlay(photo, proposals, count=1))
    assert (one[:, 100:] == 100).all() and (one[25, 25] != 100).any()
    np.testing.assert_array_equal(np.array(draw_overlay(photo, proposals[:0])), photo)


def test_large_images_are_drawn_smaller(photo: np.ndarray) -> None:
    picture = draw_overlay(photo, Proposals.from_masks(squares()), longest_side=50)
    assert picture.size == (50, 30)
    tiny = draw_overlay(np.zeros((1, 1, 3), np.uint8), Proposals.from_masks(np.ones((1, 1, 1), bool)))
    assert tiny.size == (1, 1)


def test_another_image_is_refused(photo: np.ndarray) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        draw_overlay(photo[:50], Proposals.from_masks(squares()))


def test_masks_of_any_size_are_drawn_where_they_are(photo: np.ndarray) -> None:
    """Each pixel of the drawing shows the mask as it is at the pixel's centre."""
    rng = np.random.default_rng(0)
    masks = rng.random((5, 37, 53)) < np.array([0, 0.1, 0.5, 0.9, 1])[:, None, None]
    for size in ((37, 53), (13, 20), (80, 53), (5, 211)):
        y, x = (((np.arange(new) + 0.5) * old / new).astype(int) for new, old in zip(size, (37, 53), strict=True))
        for mask, rle in zip(masks, Proposals.from_masks(masks).rles, strict=True):
            np.testing.assert_array_equal(drawn_mask(rle, size[::-1]), mask[np.ix_(y, x)])


def test_numbers_give_the_colours(photo: np.ndarray) -> None:
    proposals = Proposals.from_masks(squares()[[0, 2]], [0.9, 0.7])
    first = np.asarray(draw_on(photo, proposals, numbers=[5, 9]))
    swapped = np.asarray(draw_on(photo, proposals[[1, 0]], numbers=[9, 5]))
    np.testing.assert_array_equal(first, swapped)
    assert (first != np.asarray(draw_on(photo, proposals))).any()
