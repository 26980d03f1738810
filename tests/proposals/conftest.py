"""Networks whose answers are known, to prove where masks land without any training."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class FakeSpec:
    patch_size: int = 160
    stride: int = 16
    context: int = 16


class FakeDense(NamedTuple):
    score_logits: Tensor
    encodings: Tensor
    skips: tuple[Tensor, ...]


class BrightnessNetwork(nn.Module):
    """Scores a window by the brightness of its middle; its mask is the brightness of the window's own pixels.

    `mask_side` 160 gives the pixels themselves (logit 0 just above the grey of the padding), less gives their averages.
    """

    def __init__(self, mask_side: int = 160) -> None:
        super().__init__()
        self.spec = FakeSpec()
        self.mask_side = mask_side
        self.decoded = 0
        self.dense_sizes: list[tuple[int, ...]] = []

    def dense(self, images: Tensor) -> FakeDense:
        self.dense_sizes.append(tuple(images.shape))
        side, stride = self.spec.patch_size, self.spec.stride
        assert images.shape[2] % stride == 0 and images.shape[3] % stride == 0
        grey = images.mean(dim=1, keepdim=True)
        cells = torch.nn.functional.avg_pool2d(grey, side // 5, stride)
        begin = (side - side // 5) // 2 // stride
        h, w = ((n - side) // stride + 1 for n in images.shape[2:])
        scores = cells[:, 0, begin : begin + h, begin : begin + w]
        return FakeDense(scores * 10 - 5, images.new_zeros(images.shape[0], 1, h, w), (grey,))

    def decode(self, dense: FakeDense, batch_index: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        self.decoded += len(rows)
        side, stride = self.spec.patch_size, self.spec.stride
        windows = dense.skips[0][:, 0].unfold(1, side, stride).unfold(2, side, stride)[batch_index, rows, cols]
        logits = (windows - 0.55) * 20
        if self.mask_side == side:
            return logits
        size = (self.mask_side, self.mask_side)
        return torch.nn.functional.interpolate(logits[:, None], size=size, mode="bilinear", antialias=True)[:, 0]


class ShapeNetwork(nn.Module):
    """Gives every window the same mask (M,M) and the highest score to chosen cells."""

    def __init__(self, mask_logits: Tensor, best: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.spec = FakeSpec()
        self.mask_logits = mask_logits
        self.best = best

    def dense(self, images: Tensor) -> FakeDense:
        h, w = ((n - self.spec.patch_size) // self.spec.stride + 1 for n in images.shape[2:])
        scores = images.new_zeros(1, h, w)
        if self.best is not None:
            scores[0, self.best[0], self.best[1]] = 5
        return FakeDense(scores, images.new_zeros(1, 1, h, w), ())

    def decode(self, dense: FakeDense, batch_index: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        return self.mask_logits.to(rows.device).expand(len(rows), -1, -1)


@pytest.fixture
def brightness_network() -> type[BrightnessNetwork]:
    return BrightnessNetwork


@pytest.fixture
def shape_network() -> type[ShapeNetwork]:
    return ShapeNetwork


@pytest.fixture
def bright_photo() -> tuple[np.ndarray, np.ndarray]:
    """A dark photo (300,420,3) with one bright asymmetric object, and that object's mask."""
    y, x = np.mgrid[:300, :420] + 0.5
    disc = (np.hypot((x - 250) / 1.4, y - 170) < 55) & ~((x > 250) & (y < 150))
    mask = disc | (abs(x - 215) < 18) & (abs(y - 235) < 30)
    photo = np.where(mask, 255, 20).astype(np.uint8)
    return np.repeat(photo[:, :, None], 3, axis=2), mask
