"""Fewer and tidier masks: suppression of doubles, of parts or of wholes, measures of shape, one label per pixel.

Everything works on boxes and run-length codes; an array N x H x W never exists. Shape letters: N masks, H W image,
R runs of ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from pycocotools import mask as coco_mask

from sharpmask.errors import ConfigError
from sharpmask.proposals.profiles import Profiles
from sharpmask.proposals.rle import Rle, runs_of_ones

if TYPE_CHECKING:
    from sharpmask.proposals.result import Proposals

CONTAINMENT = ("parts", "wholes", "both")
# Masks compared at a time. pycocotools reads each mask's text once a call, so blocks pay.
_BLOCK = 64


@dataclass(frozen=True)
class Cleaning:
    """What to do with an image's proposals, in this order; each None leaves its step out.

    Attributes:
        min_score, min_area, max_area, max_aspect, max_border, min_stability: see `Proposals.filter`.
        nms: see `Proposals.nms`.
        containment: "parts", "wholes" or "both": see `Proposals.containment_nms`.
        containment_threshold: the share for it.
        partition: cut the masks so that no pixel has two (see `Proposals.partition`); `min_area` then holds for what
            is left of each.
        count: the best of what remains.

    Raises:
        ConfigError: a value outside its range.
    """

    min_score: float | None = None
    min_area: float | None = None
    max_area: float | None = None
    max_aspect: float | None = None
    max_border: float | None = None
    min_stability: float | None = None
    nms: float | None = None
    containment: str | None = None
    containment_threshold: float = 0.9
    partition: bool = False
    count: int | None = None

    def __post_init__(self) -> None:
        for name in ("min_score", "max_border", "min_stability", "nms", "containment_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} {value:g}: must lie between 0 and 1")
        if self.max_aspect is not None and not self.max_aspect >= 1:
            raise ConfigError(f"max_aspect {self.max_aspect:g}: the longer side by the shorter one is at least 1")
        if self.max_area is not None and self.max_area < (self.min_area or 0):
            raise ConfigError(
                f"max_area {self.max_area:g} is smaller than min_area {self.min_area:g}: nothing would be left"
            )
        if self.containment is not None:
            check_containment(self.containment, self.containment_threshold)
        if self.count is not None and self.count < 1:
            raise ConfigError(f"count {self.count}: must be at least 1")

    def apply(self, proposals: "Proposals") -> "Proposals":
        """The proposals that remain, best first."""
        found = proposals.filter(
            min_score=self.min_score,
            min_area=self.min_area,
            max_area=self.max_area,
            max_aspect=self.max_aspect,
            max_border=self.max_border,
            min_stability=self.min_stability,
        )
        if self.nms is not None:
            found = found.nms(self.nms)
        if self.containment is not None:
            found = found.containment_nms(self.containment, self.containment_threshold)
        if self.partition:
            found = found.partition().filter(min_area=self.min_area)
        return found[: self.count]


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


def border_shares(rles: Sequence[Rle]) -> np.ndarray:
    """(N,) float64: the share of each mask's outline, counted in sides of pixels, that lies on the image's border.

    0 for a mask that does not touch it, 1 for one that fills the image, NaN for an empty one.
    """
    return np.array([_border_share(rle) for rle in rles], np.float64)


def _border_share(rle: Rle) -> float:
    height, width = rle["size"]
    starts, ends = runs_of_ones(rle)  # pixel numbers, column by column
    if starts.size == 0:
        return float("nan")
    before = np.append(0, (ends - starts).cumsum())
    area = int(before[-1])

    def set_before(place: np.ndarray) -> np.ndarray:
        """How many pixels of the mask have a number smaller than `place`."""
        run = np.searchsorted(starts, place)
        last = np.maximum(run - 1, 0)
        return np.where(run > 0, before[last] + np.minimum(place, ends[last]) - starts[last], 0)

    top = int((-(-ends // height) + -starts // height).sum())
    bottom = int((ends // height - starts // height).sum())
    left, beyond = set_before(np.array([height, height * (width - 1)]))
    right = area - int(beyond)
    # Neighbours within a column: inside the runs, less the places where a run goes on in the next column.
    vertical = area - starts.size - int(((ends - 1) // height - starts // height).sum())
    # Neighbours within a row: pixels whose number less a column's height is set, too.
    horizontal = int((set_before(ends - height) - set_before(starts - height)).sum())
    return (top + bottom + int(left) + right) / (4 * area - 2 * (vertical + horizontal))


def paint_labels(rles: Sequence[Rle], image_size: tuple[int, int]) -> np.ndarray:
    """(H,W) int32: for each pixel 1 + the place of the first mask that holds it, 0 where none does."""
    height, width = image_size
    labels = np.zeros(height * width, np.int32)
    for place in range(len(rles) - 1, -1, -1):  # the best last, on top
        starts, ends = runs_of_ones(rles[place])
        if starts.size == 0:
            continue
        lengths = ends - starts
        shift = np.repeat(starts - (lengths.cumsum() - lengths), lengths)
        labels[shift + np.arange(shift.size)] = place + 1
    return labels.reshape(width, height).T


def label_runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The runs of each label of a map (H,W) in column-major order, sorted by label and place.

    Returns: label - 1, begin and end (exclusive) of each run, (R,) int64.
    """
    flat = labels.T.ravel().astype(np.int64)
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    values, starts, ends = flat[edges[:-1]], edges[:-1], edges[1:]
    order = np.argsort(values, kind="stable")
    order = order[values[order] > 0]
    return values[order] - 1, starts[order], ends[order]
