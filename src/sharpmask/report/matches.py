"""Which proposal fits each true object best, and which objects no proposal finds.

Letters: D proposals of an image, best first; G its objects; L the limits.
"""

from dataclasses import dataclass

import numpy as np

LIMITS = (10, 100, 1000)
# An object counts as missed where no proposal has a larger IoU than this (SharpMask paper, figure 8).
FOUND_IOU = 0.5


@dataclass(frozen=True)
class Matches:
    """For each object the best of the first 10, of the first 100 and of the first 1,000 proposals (LIMITS).

    Attributes:
        places: (L, G) int64, the place of that proposal, counted from 0; -1 where none overlaps the object.
        ious: (L, G) float64, its IoU; 0 where there is none.
    """

    places: np.ndarray
    ious: np.ndarray

    @property
    def missed(self) -> np.ndarray:
        """(L,) int64, objects without a proposal of IoU above FOUND_IOU among the first so many."""
        return (self.ious <= FOUND_IOU).sum(axis=1)


def best_matches(ious: np.ndarray) -> Matches:
    """The best matches from the IoU of every proposal with every object, (D, G).

    One proposal may be the best of several objects, unlike in the matching that average recall counts. Of equal
    proposals the one of better rank is taken.
    """
    objects = ious.shape[1]
    places = np.full((len(LIMITS), objects), -1, np.int64)
    values = np.zeros((len(LIMITS), objects))
    for row, limit in enumerate(LIMITS):
        first = ious[:limit]
        if first.size:
            values[row] = first.max(axis=0)
            places[row] = np.where(values[row] > 0, first.argmax(axis=0), -1)
    return Matches(places, values)
