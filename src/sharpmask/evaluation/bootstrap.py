"""Bootstrap intervals: how far a figure would move had other images been drawn.

Images are resampled with replacement, not objects or patches, because what lies in one image is not independent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sharpmask.errors import ConfigError

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with the ends of its 95 % bootstrap interval; all nan where there is nothing to measure."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        return {key: None if math.isnan(value) else value for key, value in vars(self).items()}


def resample_counts(units: int, resamples: int, seed: int) -> np.ndarray:
    """How often each image is drawn in each resample: (resamples, units) int32, a pure function of its arguments."""
    if resamples < 1:
        raise ConfigError(f"the number of bootstrap resamples must be at least 1, not {resamples}")
    generator = np.random.default_rng(seed)
    counts = np.empty((resamples, units), np.int32)
    for row in counts:
        row[:] = np.bincount(generator.integers(units, size=units), minlength=units) if units else 0
    return counts


def replicates(sums: np.ndarray, weights: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum / weight of each resample: sums (I, K), weights (I,), counts (R, I) -> (R, K); nan where the weight is 0."""
    result = np.empty((len(counts), sums.shape[1]))
    for start in range(0, len(counts), 100):  # blocks: the float copy of all counts would be large
        block = counts[start : start + 100].astype(np.float64)
        total = block @ weights.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            result[start : start + 100] = np.where(total[:, None] > 0, (block @ sums) / total[:, None], np.nan)
    return result


def estimates(names: Sequence[str], values: np.ndarray, drawn: np.ndarray) -> dict[str, Estimate]:
    """The figures `values` (K,) with the percentile intervals of their replicates `drawn` (R, K), by name."""
    tail = (1 - LEVEL) / 2 * 100
    found = {}
    for name, value, column in zip(names, values, drawn.T, strict=True):
        usable = column[~np.isnan(column)]  # a resample may hold no object of a rare size
        low, high = np.percentile(usable, [tail, 100 - tail]) if len(usable) else (np.nan, np.nan)
        found[name] = Estimate(float(value), float(low), float(high))
    return found
