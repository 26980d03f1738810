"""Tiles: objects on seams and corners, the same result as in one piece, memory that does not grow, large objects."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

import sharpmask
from sharpmask.errors import ConfigError
from sharpmask.proposals import Proposals, Proposer
from sharpmask.proposals.pyramid import tile_places
from sharpmask.proposals.rasters import ArrayRaster, Part
from sharpmask.proposals.tiling import coarser_scales, enlarge, propose_raster, tile_cells
from sharpmask.proposals.windows import rescaled_grid


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def photo_of(mask: np.ndarray) -> np.ndarray:
    return np.repeat(np.where(mask, 255, 20).astype(np.uint8)[:, :, None], 3, axis=2)


def blob(size: tuple[int, int], centre: tuple[int, int], radius: float) -> np.ndarray:
    """A disc with a notch, so that no symmetry hides a wrong place."""
    y, x = np.mgrid[: size[0], : size[1]]
    disc = np.hypot(y - centre[0], x - centre[1]) < radius
    return disc & ~((y < centre[0]) & (abs(x - centre[1] - radius / 3) < radius / 5))


def seams(size: tuple[int, int], tile: int, overlap: int | None) -> tuple[int, int]:
    """A corner of four tiles at scale one: the centre, in pixels, of the first window of the second tile each way."""
    most, extra = tile_cells(tile, overlap, patch_size=160, stride=16)
    places = list(tile_places(rescaled_grid(size, 0, patch_size=160, stride=16), most, extra))
    rows = sorted({place.first_cell[0] + place.rows.start for place in places})
    cols = sorted({place.first_cell[1] + place.cols.start for place in places})
    assert len(places) == len(rows) * len(cols) >= 4
    return 16 * rows[1], 16 * cols[1]


@pytest.mark.parametrize("overlap", [None, 0, 64, 160, 300])
@pytest.mark.parametrize("shift", [(0, 0), (0, 70), (-8, -8)])
def test_an_object_on_a_seam_or_corner_comes_out_whole_and_once(
    brightness_network: Any, overlap: int | None, shift: tuple[int, int]
) -> None:
    size = (700, 800)
    row, col = seams(size, 512, overlap)
    truth = blob(size, (row + shift[0], col + shift[1]), 30)
    # Windows with the object in their middle, which then see all of it.
    proposer = Proposer(brightness_network(), threshold=0.5, scales=[0], min_score=0.4)
    whole = proposer.propose(photo_of(truth))
    found = propose_raster(proposer, ArrayRaster(photo_of(truth)), tile=512, overlap=overlap, coarser=False)
    assert len(found) == len(whole) >= 6 and found.image_size == size
    assert all(iou(mask, truth) > 0.97 for mask in found.masks)
    assert len({tuple(window) for window in found.windows.tolist()}) == len(found)
    assert len(found.nms(0.8)) == 1


def test_tiles_give_what_the_whole_picture_gives(brightness_network: Any) -> None:
    y, x = np.mgrid[:640, :800]
    photo = ((np.sin(x / 23) + np.cos(y / 31 + x / 57)) * 55 + 128).astype(np.uint8)
    photo = np.repeat(photo[:, :, None], 3, axis=2)
    scales = (-2.5, -2, -1, 0, 0.5)
    whole = Proposer(brightness_network(), top=150, scales=scales, threshold=0.5).propose(photo)
    network = brightness_network()
    proposer = Proposer(network, top=150, scales=scales, threshold=0.5)
    tiled = propose_raster(proposer, ArrayRaster(photo), tile=352, top=150, coarser=False)
    assert max(max(shape[2:]) for shape in network.dense_sizes) <= 352 and len(network.dense_sizes) > 20
    assert (np.diff(tiled.scores) <= 0).all()
    a, b = ({tuple(p.windows[0].tolist()): p for p in found} for found in (whole, tiled))
    shared = a.keys() & b.keys()
    assert len(shared) > 0.95 * len(whole)  # equal scores may fall either way at the end of the list
    for window in shared:
        assert a[window].scores == pytest.approx(b[window].scores, abs=0.01)
        assert (a[window].masks[0] != b[window].masks[0]).mean() < 0.002


def test_every_window_once(shape_network: Any) -> None:
    """The fake gives each window one pixel in its middle: what comes out must be the grid of the whole picture."""
    logits = torch.full((160, 160), -9.0)
    logits[80:84, 80:84] = 9
    size = (530, 610)
    proposer = Proposer(shape_network(logits), scales=[0])
    found = propose_raster(proposer, ArrayRaster(np.zeros((*size, 3), np.uint8)), tile=400, top=10**6, coarser=False)
    corners = [tuple(box) for box in found.boxes[:, :2].astype(int).tolist()]
    expected = [(x, y) for y in range(0, size[0], 16) for x in range(0, size[1], 16)]
    assert sorted(corners) == sorted(expected)


def test_an_object_larger_than_a_tile(brightness_network: Any) -> None:
    """640 pixels, tiles of 240: neither a tile nor any of the proposer's own windows sees all of it."""
    truth = blob((900, 1000), (460, 500), 320)
    proposer = Proposer(brightness_network(), threshold=0.5, scales=[-1], nms=0.5, ranking="paper")
    found = propose_raster(proposer, ArrayRaster(photo_of(truth)), tile=240, top=600)
    assert found.scales.min() == -3  # the picture is 125 pixels long there
    assert max(iou(mask, truth) for mask in found[found.areas > truth.sum() / 2].masks) > 0.97


@pytest.mark.parametrize("size", [(1903, 2101), (2051, 900)])
def test_reduced_scales_keep_their_place(brightness_network: Any, size: tuple[int, int]) -> None:
    """At 2^-4.5 masks are made at a quarter of the resolution: within two of these pixels of the truth everywhere."""
    truth = blob(size, (size[0] - 700, size[1] - 420), 410)
    proposer = Proposer(brightness_network(), threshold=0.5, scales=[-4.5])
    found = propose_raster(proposer, ArrayRaster(photo_of(truth)), tile=512, top=500, coarser=False)
    large = found[found.areas > 0.9 * truth.sum()]
    assert len(large)
    assert max(iou(mask, truth) for mask in large.masks) > 0.95
    for rle, area, box in zip(found.rles, found.areas, found.boxes, strict=True):
        assert coco_mask.area(rle) == area
        assert (coco_mask.toBbox(rle) == [*box[:2], *(box[2:] - box[:2])]).all()


def test_enlarging_codes_is_repeating_pixels() -> None:
    rng = np.random.default_rng(0)
    for factor, size in [(2, (7, 9)), (4, (16, 13)), (3, (5, 1)), (8, (8, 8)), (2, (6, 10))]:
        small = [-(-side // factor) for side in size]
        masks = rng.random((6, *small)) < np.array([0, 0.2, 0.5, 0.8, 0.95, 1])[:, None, None]
        found = enlarge(Proposals.from_masks(masks).rles, factor, size)
        large = np.repeat(np.repeat(masks, factor, axis=1), factor, axis=2)[:, : size[0], : size[1]]
        expected = Proposals.from_masks(large)
        assert found.rles == expected.rles
        np.testing.assert_array_equal(found.boxes, expected.boxes)
        np.testing.assert_array_equal(found.areas, expected.areas)


class Stripes:
    """A picture of any height that is made when it is read: bright squares of 90 pixels every 400."""

    ground = None
    reduces = True

    def __init__(self, height: int) -> None:
        self.size = (height, 600)
        self.largest = 0

    def read(self, rows: tuple[int, int], cols: tuple[int, int], step: int) -> Part:
        y, x = (np.arange(*span)[:, None] * step for span in (rows, cols))
        bright = (y % 400 < 90) & (x.T % 400 < 90)
        self.largest = max(self.largest, bright.size)
        return Part(photo_of(bright), None)


def peak(height: int, network: Any) -> tuple[int, int, int]:
    """Bytes that NumPy held at the most, pixels read at once, and the network's largest input."""
    raster = Stripes(height)
    proposer = Proposer(network, threshold=0.5, scales=[-2, 0], device="cpu", feature_bytes=4_000_000)
    tracemalloc.start()
    found = propose_raster(proposer, raster, tile=512, top=60)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) and found.image_size == raster.size
    return most, raster.largest, max(h * w for _, _, h, w in network.dense_sizes)


def test_memory_does_not_grow_with_the_picture(brightness_network: Any) -> None:
    """15,000 x 600 pixels are 27 MB as RGB; five times the height may cost what the longer list of tiles does."""
    short, tall = peak(3_000, brightness_network(56)), peak(15_000, brightness_network(56))
    assert tall[0] < short[0] + 1e6
    assert tall[1] < 1.1 * short[1] and tall[2] <= 512 * 512


class Holed:
    """A photo of which a part has no data."""

    ground = None
    reduces = True

    def __init__(self, photo: np.ndarray, valid: np.ndarray) -> None:
        self.photo, self.valid = photo, valid
        self.size = valid.shape

    def read(self, rows: tuple[int, int], cols: tuple[int, int], step: int) -> Part:
        part = (slice(rows[0] * step, rows[1] * step, step), slice(cols[0] * step, cols[1] * step, step))
        return Part(self.photo[part], self.valid[part])


def test_nothing_is_proposed_where_there_is_no_data(brightness_network: Any) -> None:
    """All is bright, but the right half, cut slantwise, has no data."""
    y, x = np.mgrid[:300, :800]
    valid = x + 0.4 * y < 350
    network = brightness_network()
    proposer = Proposer(network, threshold=0.5, scales=[-1, 0])
    found = propose_raster(proposer, Holed(photo_of(x >= 0), valid), tile=416, top=10**5, coarser=False)
    assert len(found) > 200
    for mask, scale in zip(found.masks, found.scales, strict=True):
        assert (mask & ~valid).sum() <= 1.2 * 2**-scale * np.hypot(300, 120)  # a pixel's width along the edge
    union = found.masks.any(axis=0)
    assert (valid & ~union).mean() < 0.01
    middles = (found.windows[:, :2] + found.windows[:, 2:]) / 2
    assert (middles[:, 0] + 0.4 * middles[:, 1] < 350 + 16).all()
    # Tiles wholly without data do not reach the network.
    all_tiles = brightness_network()
    propose_raster(Proposer(all_tiles, scales=[-1, 0]), ArrayRaster(photo_of(x >= 0)), tile=416, top=9, coarser=False)
    assert 0 < len(network.dense_sizes) < len(all_tiles.dense_sizes)


def test_specks_without_data_do_no_harm(brightness_network: Any) -> None:
    truth = blob((400, 500), (200, 260), 46)
    valid = np.random.default_rng(0).random(truth.shape) > 0.02
    proposer = Proposer(brightness_network(), threshold=0.5, scales=[0], nms=0.3)
    found = propose_raster(proposer, Holed(photo_of(truth), valid), tile=352, top=2000, coarser=False)
    assert iou(found.masks[0], truth) > 0.9


def test_how_many_windows(shape_network: Any) -> None:
    proposer = Proposer(shape_network(torch.ones(56, 56)), scales=[1], top=30)
    small, large = (ArrayRaster(np.zeros((side, 1000, 3), np.uint8)) for side in (40, 500))
    assert len(propose_raster(proposer, small, tile=1024, coarser=False)) == 30
    assert len(propose_raster(proposer, large, tile=1024, coarser=False)) == 250  # 500 a megapixel
    assert len(propose_raster(proposer, large, tile=1024, coarser=False, top=7)) == 7


def test_the_proposers_limits_hold(brightness_network: Any) -> None:
    truth = blob((300, 400), (150, 200), 46)
    proposer = Proposer(
        brightness_network(), threshold=0.5, scales=[0], min_area=4000, max_area=6500, min_score=0.4, ranking="paper"
    )
    found = propose_raster(proposer, ArrayRaster(photo_of(truth)), tile=512, coarser=False)
    assert len(found) and found.areas.min() >= 4000 and found.areas.max() <= 6500 and found.scores.min() >= 0.4
    measured = Proposer(
        brightness_network(), threshold=0.5, scales=[0], stability_offset=1, min_score=0.4, ranking="paper"
    )
    stability = propose_raster(measured, ArrayRaster(photo_of(truth)), tile=512, coarser=False).stability
    assert stability is not None and stability.max() > 0.9


def test_coarser_scales() -> None:
    assert coarser_scales((-2.5, 0), (480, 640), 160) == (-2.5, 0)
    assert coarser_scales((0, 1), (2000, 900), 160) == (-4.5, -4, -3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0, 1)
    assert coarser_scales((0,), (10**6, 9), 160)[0] == -8


def test_tiles_that_cannot_be() -> None:
    assert tile_cells(160, None, patch_size=160, stride=16) == (1, 0)
    assert tile_cells(2048, None, patch_size=160, stride=16) == (107, 6)
    assert tile_cells(512, 0, patch_size=160, stride=16) == (23, 0)
    for overlap in (150, 160, 161, 400):
        most, extra = tile_cells(1024, overlap, patch_size=160, stride=16)
        common = 160 + 16 * (2 * extra - 1)
        assert overlap <= common < max(overlap, 160) + 32 and 16 * (most + 2 * extra - 1) + 160 <= 1024
    for arguments in ((100, None), (0, None), (-5, None), (300, 500), (1024, -1), (512, 512)):
        with pytest.raises(ConfigError, match=r"tile|overlap"):
            tile_cells(*arguments, patch_size=160, stride=16)


def test_the_bundled_model_on_seams(examples: Any) -> None:
    """The best masks of a photo in one piece are there, whole, when it is cut through the middle of them."""
    with Image.open(examples / "riders.jpg") as file:
        photo = np.asarray(file.convert("RGB").resize((560, round(560 * file.height / file.width))))
    proposer = sharpmask.load(scales=[-1.5, -0.5], device="cpu")
    whole = proposer.propose(photo, top=60)
    tiled = propose_raster(proposer, ArrayRaster(photo), tile=288, top=60, coarser=False)
    a, b = ({tuple(p.windows[0].tolist()): p for p in found} for found in (whole, tiled))
    assert len(b) == len(tiled)  # no window twice
    shared = sorted(a.keys() & b.keys())
    assert len(shared) >= 50
    overlaps = [coco_mask.iou(a[key].rles, b[key].rles, [0])[0, 0] for key in shared]
    assert np.median(overlaps) > 0.97 and min(overlaps) > 0.75
