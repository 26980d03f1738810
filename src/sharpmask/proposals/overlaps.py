"""Which masks overlap, and what greedy suppression leaves of them, from boxes and run-length codes.

An array N x H x W never exists.
"""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
from pycocotools import mask as coco_mask

from sharpmask.errors import ConfigError
from sharpmask.proposals.profiles import Profiles
from sharpmask.proposals.rle import Rle

CONTAINMENT = ("parts", "wholes", "both")
# Masks compared at a time. pycocotools reads each mask's text once a call, so blocks pay.
_BLOCK = 64


def check_containment(drop: str, threshold: float) -> None:
    if drop not in CONTAINMENT:
        raise ConfigError(f"containment '{drop}': must be one of {', '.join(CONTAINMENT)}")
    if not 0 <= threshold <= 1:
        raise ConfigError(f"containment threshold {threshold:g}: must lie between 0 and 1")


class Overlaps:
    """Pairwise tests between N masks: exact where boxes, areas and profiles leave the answer open, cheap elsewhere."""

    def __init__(self, rles: Sequence[Rle], boxes: np.ndarray, areas: np.ndarray) -> None:
        self.rles, self.boxes, self.areas = rles, boxes.astype(np.float64), areas.astype(np.float64)

    def doubles(self, iou: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """A test for `greedy`: IoU above `iou`."""

        def test(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            possible = self._possible(first, second, self._shared(first, second, iou))
            return self._exact(first, second, possible, crowd=False) > iou

        return test

    def nested(self, drop: str, threshold: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """A test for `greedy`: intersection over the smaller area above `threshold`, and the first is the one to drop:
        the smaller of the two for "parts", the larger for "wholes"; of equal areas either."""

        def test(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            area, other = self.areas[first][:, None], self.areas[second][None]
            possible = self._possible(first, second, threshold * np.minimum(area, other))
            if drop == "parts":
                possible &= area <= other
            elif drop == "wholes":
                possible &= area >= other
            share = self._exact(first, second, possible, crowd=True)  # of the first's area
            return share * area > threshold * np.minimum(area, other) * (1 + 1e-12)

        return test

    def ious(self, first: np.ndarray, second: np.ndarray, least: float) -> np.ndarray:
        """(len(first), len(second)) IoU; 0 where it is told without computing it that it is less than `least`, which is
        more than 0."""
        possible = self._possible(first, second, self._shared(first, second, least))
        values = np.zeros(possible.shape)
        for row in np.flatnonzero(possible.any(axis=1)):  # few are possible: not all of rows x columns
            cols = np.flatnonzero(possible[row])
            others = [self.rles[i] for i in second[cols]]
            values[row, cols] = coco_mask.iou(others, [self.rles[first[row]]], [0])[:, 0]
        return values

    @cached_property
    def _profiles(self) -> Profiles:
        return Profiles(self.rles)

    def _shared(self, first: np.ndarray, second: np.ndarray, iou: float) -> np.ndarray:
        """(len(first), len(second)) the pixels that two masks of that IoU share."""
        return iou / (1 + iou) * (self.areas[first][:, None] + self.areas[second][None])

    def _possible(self, first: np.ndarray, second: np.ndarray, pixels: np.ndarray) -> np.ndarray:
        """(len(first), len(second)): whether masks may share so many pixels, and any at all."""
        needed = np.maximum(pixels * (1 - 1e-9), 1)
        possible = self._most(first, second) >= needed
        rows, cols = np.nonzero(possible)
        if rows.size:
            possible[rows, cols] = self._profiles.most(first[rows], second[cols]) >= needed[rows, cols]
        return possible

    def _most(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """The largest intersection that boxes and areas allow, in pixels."""
        a, b = self.boxes[first][:, None], self.boxes[second][None]
        sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(min=0)
        areas = np.minimum(self.areas[first][:, None], self.areas[second][None])
        return np.minimum(sides[..., 0] * sides[..., 1], areas)

    def _exact(self, first: np.ndarray, second: np.ndarray, possible: np.ndarray, *, crowd: bool) -> np.ndarray:
        """(len(first), len(second)): pycocotools' IoU, or intersection over the first's area, where `possible`."""
        values = np.zeros(possible.shape)
        rows, cols = np.flatnonzero(possible.any(axis=1)), np.flatnonzero(possible.any(axis=0))
        if rows.size:
            a, b = [self.rles[i] for i in first[rows]], [self.rles[i] for i in second[cols]]
            values[np.ix_(rows, cols)] = coco_mask.iou(a, b, [int(crowd)] * cols.size)
        return np.where(possible, values, 0.0)


def greedy(count: int, drops: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> list[int]:
    """From the first on, keep each of `count` masks that no kept one drops.

    `drops(first, second)` tells for arrays of places which of `first` (rows) fall to which of `second` (columns).

    Returns: the places of the kept ones, ascending.
    """
    kept: list[int] = []
    for begin in range(0, count, _BLOCK):
        block = np.arange(begin, min(begin + _BLOCK, count))
        for part in range(0, len(kept), 4 * _BLOCK):
            block = block[~drops(block, np.array(kept[part : part + 4 * _BLOCK], np.int64)).any(axis=1)]
            if block.size == 0:
                break
        within = drops(block, block)
        alive = np.ones(len(block), bool)
        for i in range(len(block)):
            if alive[i]:
                kept.append(int(block[i]))
                alive[i + 1 :] &= ~within[i + 1 :, i]
    return kept
