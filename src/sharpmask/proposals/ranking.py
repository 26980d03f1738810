"""In which order an image's masks are given: by the network's scores alone, or with copies of better masks moved back.

Several windows find each object, and their masks fill the first places of a list that follows the scores alone. Soft
suppression (Bodla et al., "Soft-NMS", ICCV 2017; here on the IoU of masks) drops nothing: a mask's score falls with
every better mask that it resembles, so that the first places hold different objects and the copies come later, where
they still count for those who read on. Before that, scores are lowered for masks that change when the threshold moves:
such masks fit their objects worse. Shape letters: N masks, E pairs of masks.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sharpmask.errors import ConfigError

Ranking = Literal["paper", "soft"]
RANKINGS: tuple[Ranking, ...] = ("paper", "soft")
# Of `Proposer`, and by it of every command and of the server.
DEFAULT_RANKING: Ranking = "soft"
# Chosen by the study in docs/experiments.md.
ABOVE = 0.5
STABILITY_WEIGHT = 16.0
STABILITY_OFFSET = 1.0
# A stability is taken to be at least this: its logarithm must not be infinite.
_LEAST_STABILITY = 0.01
# Masks whose overlaps are computed at a time.
_BLOCK = 64


def check_ranking(ranking: str) -> None:
    """ConfigError for a name that is none of RANKINGS."""
    if ranking not in RANKINGS:
        raise ConfigError(f"ranking '{ranking}': must be one of {', '.join(RANKINGS)}")


@dataclass(frozen=True)
class Pairs:
    """The pairs of N masks that overlap, each once in either direction, sorted by the first.

    Attributes:
        begins: (N + 1,) int64; mask i's partners are at begins[i] … begins[i + 1] - 1 of the others.
        partners: (2E,) int64, places of masks.
        ious: (2E,) float64.
    """

    begins: np.ndarray
    partners: np.ndarray
    ious: np.ndarray


def with_stability(scores: np.ndarray, stability: np.ndarray, weight: float) -> np.ndarray:
    """Probabilities (N,) whose odds are multiplied by the stability (N,) to the power `weight`."""
    factors = np.maximum(stability.astype(np.float64), _LEAST_STABILITY) ** weight
    # p = o / (1 + o) with o = factor * q / (1 - q), without dividing by a 1 - q that may be 0.
    raised = scores.astype(np.float64) * factors
    return np.asarray(raised / (raised + (1 - scores.astype(np.float64))).clip(min=1e-300))


def linear(above: float) -> Callable[[np.ndarray], np.ndarray]:
    """The factor 1 - IoU for overlaps greater than `above`, and 1 for all others."""
    return lambda iou: np.where(iou > above, 1 - iou, 1.0)


def overlapping_pairs(count: int, ious: Callable[[np.ndarray, np.ndarray, float], np.ndarray], least: float) -> Pairs:
    """The pairs of `count` masks with an IoU of at least `least`, which is more than 0; see `overlaps.Overlaps.ious`
    for `ious`."""
    rows, cols, values = [], [], []
    for begin in range(0, count, _BLOCK):
        block, later = np.arange(begin, min(begin + _BLOCK, count)), np.arange(begin, count)
        found = ious(block, later, least)
        row, col = np.nonzero((found >= least) & (later[None] > block[:, None]))
        rows.append(block[row])
        cols.append(later[col])
        values.append(found[row, col])
    first, second, iou = (np.concatenate(parts) if parts else np.zeros(0) for parts in (rows, cols, values))
    owner, partner = np.concatenate([first, second]).astype(np.int64), np.concatenate([second, first]).astype(np.int64)
    order = np.argsort(owner, kind="stable")
    begins = np.searchsorted(owner[order], np.arange(count + 1))
    return Pairs(begins, partner[order], np.concatenate([iou, iou])[order])


def soft_order(
    scores: np.ndarray, pairs: Pairs, factor: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Soft suppression: the best mask is taken, the scores of those that overlap it are lowered, and so on.

    Args:
        scores: (N,) not negative.
        pairs: which masks overlap.
        factor: what scores are multiplied by, 0 … 1, for IoU (n,) with the mask that was taken.

    Returns: the places (N,) in their new order, and the lowered scores (N,) in that order, descending. Equal scores
    stay in their present order.
    """
    now = scores.astype(np.float64)
    factors = factor(pairs.ious)
    heap = [(-score, place) for place, score in enumerate(now.tolist())]
    heapq.heapify(heap)
    taken = np.zeros(len(now), bool)
    order: list[int] = []
    while heap:
        negative, place = heapq.heappop(heap)
        if taken[place] or -negative != now[place]:
            continue  # taken already, or put back since with a lower score
        taken[place] = True
        order.append(place)
        own = slice(pairs.begins[place], pairs.begins[place + 1])
        free = ~taken[pairs.partners[own]]
        lowered = pairs.partners[own][free]
        now[lowered] *= factors[own][free]
        for other, score in zip(lowered.tolist(), now[lowered].tolist(), strict=True):
            heapq.heappush(heap, (-score, other))
    places = np.array(order, np.int64)
    return places, now[places]
