"""The whole road from image to masks, with networks whose answers are known."""

import dataclasses
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sharpmask.errors import ConfigError, ImageError, ModelError
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import SPECS
from sharpmask.proposals import Proposals, Proposer
from sharpmask.proposals.clock import Clock

Photo = tuple[np.ndarray, np.ndarray]


def same(a: Proposals, b: Proposals) -> bool:
    arrays = all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in ("scores", "boxes", "windows", "scales", "areas")
    )
    return arrays and a.rles == b.rles


def inside(window: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return (x > window[0]) & (x < window[2]) & (y > window[1]) & (y < window[3])


@pytest.mark.parametrize("exponent", [-2.5, -2, -1.5, -1, -0.5, 0, 0.5, 0.3])
@pytest.mark.parametrize("mask_side", [160, 56])
def test_masks_reproduce_the_photo(
    bright_photo: Photo, brightness_network: Any, exponent: float, mask_side: int
) -> None:
    """The fake's mask is what is bright in its own window, so every window that sees the object must return its exact
    shape at its exact place. This holds only if rescaling, padding, cells and pasting agree."""
    photo, mask = bright_photo
    found = Proposer(brightness_network(mask_side), scales=[exponent], threshold=0.5).propose(photo)
    # 56 pixels for a window of 160/2^-2.5 = 905 px are 16 px each: rounder corners, the same place.
    limit = 0.97 if mask_side == 160 or exponent > -1.5 else 0.92
    seen = 0
    for proposal in found:
        truth = mask & inside(proposal.windows[0], mask.shape)
        if truth.sum() > 0.6 * mask.sum():
            got = proposal.masks[0]
            assert (got & truth).sum() / (got | truth).sum() > limit
            seen += 1
    assert seen >= 15


@pytest.mark.parametrize("exponent", [-2.5, -0.5, 0.3])
@pytest.mark.parametrize("tile_pixels", [512 * 512, 2**22])
def test_half_steps_add_the_windows_between(
    bright_photo: Photo, brightness_network: Any, exponent: float, tile_pixels: int
) -> None:
    photo, mask = bright_photo
    options = {"scales": [exponent], "threshold": 0.5, "top": 10_000, "tile_pixels": tile_pixels}
    plain = Proposer(brightness_network(), **options).propose(photo)
    finer = Proposer(brightness_network(), **options, half_steps=True).propose(photo)
    known = set(map(tuple, plain.windows.tolist()))
    added = finer[[tuple(window) not in known for window in finer.windows.tolist()]]
    assert len(added) + len(plain) == len(finer) and len(added) > 0.5 * len(plain)
    # Half a stride, 8 rescaled pixels, from the windows there were; the factors are nearly 2^exponent.
    middles = [(found.windows[:, :2] + found.windows[:, 2:]) / 2 * 2**exponent for found in (plain, added)]
    assert np.abs(middles[0] % 16 - 8).min() > 7 and np.abs(middles[1] % 16 - 8).max() < 1
    seen = 0
    for proposal in added:
        truth = mask & inside(proposal.windows[0], mask.shape)
        if truth.sum() > 0.6 * mask.sum():
            got = proposal.masks[0]
            assert (got & truth).sum() / (got | truth).sum() > 0.96
            seen += 1
    assert seen >= 10


def test_half_steps_of_an_image_smaller_than_a_step(brightness_network: Any) -> None:
    photo = np.full((20, 30, 3), 255, np.uint8)
    found = Proposer(brightness_network(), scales=[-2.5], threshold=0.5, half_steps=True).propose(photo)
    assert len(found) == 2 and (found.areas == 600).all()


def test_best_windows_over_all_scales(bright_photo: Photo, brightness_network: Any) -> None:
    photo, _ = bright_photo
    network = brightness_network()
    proposer = Proposer(network, top=50, threshold=0.5, ranking="paper")
    found = proposer.propose(photo)
    assert network.decoded == 50
    assert len(network.dense_sizes) == 7
    assert 0 < len(found) <= 50 and (np.diff(found.scores) <= 0).all() and 0 < found.scores.max() < 1
    assert set(found.scales.tolist()) <= set(proposer.scales)
    more = Proposer(brightness_network(), top=120, threshold=0.5, ranking="paper").propose(photo)
    assert same(more[: len(found)], found)
    assert same(proposer.propose(photo, top=10), found[:10])
    sizes = found.windows[:, 2] - found.windows[:, 0]
    np.testing.assert_allclose(sizes, 160 / 2.0**found.scales, rtol=0.02)


def test_one_known_cell(shape_network: Any) -> None:
    """An L of known size in the window of cell (3, 5) at scale one."""
    logits = torch.full((160, 160), -9.0)
    logits[40:100, 30:50] = 9
    logits[80:100, 30:120] = 9
    found = Proposer(shape_network(logits, (3, 5)), top=1, scales=[0]).propose(np.zeros((200, 300, 3), np.uint8))
    assert found.windows.tolist() == [[0, -32, 160, 128]]
    expected = np.zeros((200, 300), bool)
    expected[8:68, 30:50] = expected[48:68, 30:120] = True
    np.testing.assert_array_equal(found.masks[0], expected)
    assert found.boxes.tolist() == [[30, 8, 120, 68]]


def test_ties_are_broken_by_scale_row_and_column(shape_network: Any) -> None:
    found = Proposer(shape_network(torch.ones(56, 56)), top=30, scales=[0, -1], ranking="paper").propose(
        np.zeros((100, 120, 3), np.uint8)
    )
    assert found.scales.tolist() == [-1] * 16 + [0] * 14
    corners = found.windows[:16, [1, 0]].tolist()
    assert corners == sorted(corners)


def test_the_same_image_gives_the_same_result(brightness_network: Any, tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.png")
    proposer = Proposer(brightness_network(56), top=60, threshold=0.5)
    first = proposer.propose(photo)
    assert len(first)
    for source in (photo, Image.fromarray(photo), tmp_path / "a.png", str(tmp_path / "a.png")):
        assert same(proposer.propose(source), first)


def test_features_are_released_early_without_changing_the_result(bright_photo: Photo, brightness_network: Any) -> None:
    photo, _ = bright_photo
    kept, released = brightness_network(), brightness_network()
    expected = Proposer(kept, top=40, threshold=0.5).propose(photo)
    found = Proposer(released, top=40, threshold=0.5, feature_bytes=0, decode_batch=7).propose(photo)
    assert same(found, expected)
    assert released.decoded > kept.decoded


def test_tiles_do_not_change_the_result(brightness_network: Any) -> None:
    """The fake sees only its window, so tiled and whole results may differ by 8-bit rounding alone."""
    y, x = np.mgrid[:640, :800]
    photo = ((np.sin(x / 23) + np.cos(y / 31 + x / 57)) * 55 + 128).astype(np.uint8)
    whole = Proposer(brightness_network(), top=60, scales=[0, 0.5], threshold=0.5).propose(photo)
    network = brightness_network()
    proposer = Proposer(network, top=60, scales=[0, 0.5], threshold=0.5, tile_pixels=512 * 512, feature_bytes=10**6)
    tiled = proposer.propose(photo)
    assert len(network.dense_sizes) > 8
    assert max(h * w for _, _, h, w in network.dense_sizes) <= 512 * 512
    order_whole, order_tiled = (np.lexsort(found.windows.T) for found in (whole, tiled))
    shared = set(map(tuple, whole.windows.tolist())) & set(map(tuple, tiled.windows.tolist()))
    assert len(shared) > 50  # of 60
    a = {tuple(whole.windows[i].tolist()): whole[int(i)].masks[0] for i in order_whole}
    b = {tuple(tiled.windows[i].tolist()): tiled[int(i)].masks[0] for i in order_tiled}
    for window in shared:
        assert (a[window] != b[window]).mean() < 0.002


def test_large_image_within_bounded_memory(shape_network: Any) -> None:
    """6 megapixels at 2^1.5 are 48 megapixels, 576 MB as floats; tiles of 1 megapixel need a fraction of it."""
    photo = np.zeros((2000, 3000, 3), np.uint8)
    proposer = Proposer(shape_network(torch.ones(56, 56)), top=50, scales=[1.5], tile_pixels=2**20, device="cpu")
    sizes = []
    dense = proposer.network.dense

    def watch(images: torch.Tensor) -> Any:
        sizes.append(images.numel())
        return dense(images)

    proposer.network.dense = watch
    tracemalloc.start()
    found = proposer.propose(photo)
    peak = tracemalloc.get_traced_memory()[1]  # NumPy's memory; PyTorch's is that of a tile
    tracemalloc.stop()
    assert len(found) == 50
    assert max(sizes) <= 3 * 2**20 and len(sizes) > 40
    assert peak < 25e6


def test_limits_on_what_comes_out(bright_photo: Photo, brightness_network: Any) -> None:
    photo, _ = bright_photo
    photo = photo[100:260, 180:340]
    everything = Proposer(brightness_network(56), threshold=0.5, ranking="paper").propose(photo)
    assert (everything.areas > 0).all()
    middle = float(np.median(everything.areas))
    few = Proposer(
        brightness_network(56), threshold=0.5, min_area=middle, max_area=2 * middle, ranking="paper"
    ).propose(photo)
    assert same(few, everything.filter(min_area=middle, max_area=2 * middle))
    network = brightness_network(56)
    good = Proposer(network, threshold=0.5, min_score=0.3, ranking="paper").propose(photo)
    assert same(good, everything.filter(min_score=0.3)) and 0 < len(good) < len(everything)
    assert network.decoded < 1000
    apart = Proposer(brightness_network(56), threshold=0.5, nms=0.6, ranking="paper").propose(photo)
    assert same(apart, everything.nms(0.6)) and len(apart) < len(everything)
    smaller = Proposer(brightness_network(56), threshold=0.5, ranking="paper").propose(photo, threshold=0.99)
    assert smaller.areas.sum() < everything.areas.sum()


def test_empty_masks_are_dropped(shape_network: Any) -> None:
    found = Proposer(shape_network(torch.full((56, 56), -9.0))).propose(np.zeros((50, 60), np.uint8))
    assert len(found) == 0 and found.masks.shape == (0, 50, 60)


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (500, 2)])
def test_tiny_images(brightness_network: Any, size: tuple[int, int]) -> None:
    found = Proposer(brightness_network(), zoom=2, threshold=0.5).propose(np.full((*size, 3), 255, np.uint8))
    assert len(found) and (found.areas <= size[0] * size[1]).all() and found[0].masks.any()


def test_bad_values_are_named(brightness_network: Any) -> None:
    for options in (
        {"top": 0},
        {"threshold": 0.0},
        {"threshold": 1.0},
        {"nms": 1.5},
        {"min_score": -0.1},
        {"min_area": 5, "max_area": 4},
        {"zoom": 3},
        {"scales": []},
        {"device": "nonsense"},
        {"device": "cuda:99"},
        {"tile_pixels": 1000},
        {"border": -1},
        {"border": 81},
    ):
        with pytest.raises(ConfigError, match=next(iter(reversed(options))).split("_")[0].rstrip("s")):
            Proposer(brightness_network(), **options)
    with pytest.raises(ConfigError, match="top"):
        Proposer(brightness_network()).propose(np.zeros((9, 9), np.uint8), top=-1)
    with pytest.raises(ImageError, match="limit"):
        Proposer(brightness_network(), max_pixels=50).propose(np.zeros((9, 9), np.uint8))


def test_a_network_without_numbers_is_refused(shape_network: Any) -> None:
    network = shape_network(torch.ones(56, 56))
    dense = network.dense
    network.dense = lambda images: dense(images)._replace(score_logits=dense(images).score_logits * torch.nan)
    with pytest.raises(ModelError, match="no numbers"):
        Proposer(network).propose(np.zeros((9, 9), np.uint8))


@pytest.mark.parametrize("refinement", [None, "refactored", "multiscale"])
@pytest.mark.parametrize("row", ["resnet50", "vgg", "w112-p4-d39", "w112-p3-d21-f128", "lite0-head-original"])
def test_a_real_network(row: str, refinement: Any) -> None:
    """At scale one the proposals of an untrained network equal its own dense run, sorted and decoded by hand.

    Half a window of 112 pixels is 3.5 cells of stride 16: the windows' centres still are at multiples of the stride.
    """
    torch.manual_seed(0)
    small = {"trunk_width": 8, "encoding": 16, "score_hidden": 8, "horizontal_width": 8, "refinement": refinement}
    network = build_network(dataclasses.replace(SPECS[f"deepmask-{row}"], features=8, **small))
    if refinement == "refactored":  # fresh, its masks are nearly flat and of one sign, which would prove little
        with torch.no_grad():
            for net in (*network.refinement.horizontal, *network.refinement.vertical):
                net.merge.weight.mul_(10)
            network.refinement.output.weight.normal_()
            network.refinement.output.weight.sub_(network.refinement.output.weight.mean())
    side, stride = network.spec.patch_size, network.spec.stride
    photo = np.random.default_rng(0).integers(0, 255, (100, 120, 3), dtype=np.uint8)
    proposer = Proposer(network, top=20, scales=[0], threshold=0.5, device="cpu", ranking="paper")
    found = proposer.propose(photo)
    assert not network.training
    assert same(found, proposer.propose(photo))
    height, width = (-(-n // stride) * stride + side for n in (100, 120))
    canvas = torch.full((1, 3, height, width), 0.5)
    begin = side // 2
    canvas[0, :, begin : begin + 100, begin : begin + 120] = torch.from_numpy(photo).permute(2, 0, 1) / 255
    with torch.inference_mode():
        dense = network.dense(canvas)
        cells = 100 // stride + 1, 120 // stride + 1
        scores = dense.score_logits[0, : cells[0], : cells[1]]
        order = scores.flatten().argsort(descending=True)[:20]
        logits = network.decode(dense, torch.zeros_like(order), order // cells[1], order % cells[1])
    masks, expected_scores = {}, {}
    for cell, window in zip(order.tolist(), logits, strict=True):
        top, left = stride * (cell // cells[1]), stride * (cell % cells[1])
        full = torch.zeros(height, width, dtype=torch.bool)
        if refinement:
            full[top : top + side, left : left + side] = window > 0
        corner = (float(left - begin), float(top - begin))
        masks[corner] = full[begin : begin + 100, begin : begin + 120].numpy()
        expected_scores[corner] = float(scores.flatten()[cell].sigmoid())
    assert (found.windows[:, 2:] - found.windows[:, :2] == side).all()
    corners = list(map(tuple, found.windows[:, :2].tolist()))
    np.testing.assert_allclose(found.scores, [expected_scores[corner] for corner in corners], rtol=1e-4)
    if refinement:
        assert sorted(corners) == sorted(corner for corner, mask in masks.items() if mask.any())
        for proposal, corner in zip(found, corners, strict=True):
            assert (proposal.masks[0] != masks[corner]).mean() < 1e-3  # rounding of logits near zero
    assert len(found) > 0


def test_windows_of_all_scales_are_decoded_together() -> None:
    torch.manual_seed(0)
    small = {"trunk_width": 8, "encoding": 16, "score_hidden": 8, "horizontal_width": 8, "features": 8}
    network = build_network(dataclasses.replace(SPECS["sharpmask-resnet50"], **small))
    photo = np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8)
    batches: list[int] = []
    decode_crops = network.decode_crops

    def watch(crops: Any) -> torch.Tensor:
        batches.append(len(crops[0]))
        return decode_crops(crops)

    network.decode_crops = watch
    expected = Proposer(network, top=50, device="cpu", decode_batch=1).propose(photo)
    assert batches == [1] * 50 and len(set(expected.scales.tolist())) > 1
    batches.clear()
    found = Proposer(network, top=50, device="cpu", decode_batch=20).propose(photo)
    assert batches == [20, 20, 10]
    # Another batch size may round differently, which moves single pixels.
    assert len(found) == len(expected) and np.array_equal(found.windows, expected.windows)
    assert (found.masks != expected.masks).mean() < 1e-3


def test_a_clock_is_told_every_stage(bright_photo: Photo, brightness_network: Any) -> None:
    clock = Clock()
    proposer = Proposer(brightness_network(56), top=30, threshold=0.5, clock=clock, device="cpu")
    for _ in range(2):  # each image begins anew
        begin = time.perf_counter()
        proposer.propose(bright_photo[0])
        took = time.perf_counter() - begin
        stages = ["decode", "pyramid", "dense", "top-N", "refinement", "paste + RLE", "result"]
        assert list(clock.seconds) == stages
        assert all(seconds > 0 for seconds in clock.seconds.values()) and sum(clock.seconds.values()) <= took


def test_no_window_at_all(bright_photo: Photo, brightness_network: Any) -> None:
    found = Proposer(brightness_network(), min_score=1, stability_offset=1).propose(bright_photo[0])
    assert len(found) == 0 and len(found.filter(min_stability=0.5)) == 0


@pytest.mark.parametrize("border", [16, 40, 80])
def test_a_border_drops_the_windows_near_it(bright_photo: Photo, brightness_network: Any, border: int) -> None:
    """The fake sees only its window, so that the windows that are left give what they gave before."""
    photo, _ = bright_photo
    options = {"threshold": 0.5, "scales": [-0.5, 0], "ranking": "paper", "device": "cpu"}
    everything = Proposer(brightness_network(56), **options).propose(photo)
    network = brightness_network(56)
    found = Proposer(network, border=border, **options).propose(photo)
    middle = (everything.windows[:, :2] + everything.windows[:, 2:]) / 2 * 2.0 ** everything.scales[:, None]
    size = np.array([420, 300]) * 2.0 ** everything.scales[:, None]
    inner = ((middle > border - 0.5) & (middle < size - border + 0.5)).all(axis=1)
    assert same(found, everything[inner]) and 0 < len(found) < len(everything)
    assert network.dense_sizes[1][2:] < (300 + 160, 420 + 160)
