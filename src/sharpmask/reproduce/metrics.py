"""The figures of a table by name, as sums over images, so that any two rows can be compared with a paired interval.

Names: "mask AR@10", "box AUC", "mask AUC-S" (sizes S, M, L) and so on, "upper bound"; of times "total time" and "mask
time" (trunk and mask).
"""

from dataclasses import dataclass

import numpy as np

from sharpmask.evaluation.bootstrap import Estimate, estimates, replicates, resample_counts
from sharpmask.evaluation.recall import METRICS, THRESHOLDS, Recall

RESAMPLES, SEED = 1000, 0
_KINDS = {"box": "bbox", "mask": "segm"}
_SIZES = {"S": "small", "M": "medium", "L": "large"}
# Sums over images (I,) of a figure's numerator and of its denominator.
Sums = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Measured:
    """A row's accuracy.

    Attributes:
        recall: of at most 1,000 proposals an image.
        best_ious: for each image the IoU (G,) of each object with its best window's mask, where that was asked for.
        proposals: how many there were in all.
    """

    recall: Recall
    best_ious: list[np.ndarray] | None
    proposals: int

    def sums(self, metric: str) -> Sums | None:
        """What `metric` is made of; None where it was not measured."""
        if metric == "upper bound":
            if self.best_ious is None:
                return None
            found = [(ious[:, None] >= THRESHOLDS).mean(axis=1).sum() for ious in self.best_ious]
            return np.array(found), np.array([len(ious) for ious in self.best_ious])
        kind, _, name = metric.partition(" ")
        area = "all"
        if name[:-1] == "AUC-":
            name, area = "AUC", _SIZES[name[-1]]
        areas = self.recall.areas.get(_KINDS[kind])
        if areas is None:
            return None
        return areas[area].credits[:, METRICS.index(name)], areas[area].objects

    def estimate(self, metric: str) -> Estimate | None:
        """The figure as a fraction, with its interval; None where it was not measured."""
        sums = self.sums(metric)
        return None if sums is None else ratio(*sums)

    def minus(self, other: "Measured", metric: str) -> Estimate | None:
        """This figure less the other's, both on the same resampled images; None where one was not measured."""
        one, two = self.sums(metric), other.sums(metric)
        return None if one is None or two is None else difference(one, two)


def ratio(sums: np.ndarray, weights: np.ndarray) -> Estimate:
    """Sum / weight with its bootstrap interval over the entries (I,)."""
    return _estimate(_mean(sums, weights), _drawn(sums, weights))


def difference(one: Sums, two: Sums) -> Estimate:
    """First ratio less second, with the paired interval."""
    return _estimate(_mean(*one) - _mean(*two), _drawn(*one) - _drawn(*two))


def _mean(sums: np.ndarray, weights: np.ndarray) -> float:
    total = weights.sum()
    return float(sums.sum() / total) if total else float("nan")


def _drawn(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return replicates(sums[:, None], weights, resample_counts(len(sums), RESAMPLES, SEED))


def _estimate(value: float, drawn: np.ndarray) -> Estimate:
    return estimates(["value"], np.array([value]), drawn)["value"]
