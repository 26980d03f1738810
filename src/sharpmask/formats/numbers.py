"""Coordinates as text: whole numbers stay whole, others get a few decimals, and nothing becomes `-0`."""

from collections.abc import Sequence

import numpy as np


def flat_list(points: np.ndarray, digits: int = 3) -> Sequence[float]:
    """[x, y, x, y, …] of points (n,2), integers where all are whole."""
    if np.array_equal(points, np.rint(points)):
        return points.astype(np.int64).ravel().tolist()
    return (points.round(digits) + 0.0).ravel().tolist()


def pair_list(points: np.ndarray, digits: int = 3) -> list[list[float]]:
    """[[x, y], …] of points (n,2), integers where all are whole."""
    values = flat_list(points, digits)
    return [[x, y] for x, y in zip(values[0::2], values[1::2], strict=True)]


def exact(value: np.floating) -> float:
    """A float32 as the float with the shortest text that gives the same float32 again."""
    return float(str(value))
