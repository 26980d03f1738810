"""How the pixels of masks are spread over the image's columns and rows, to bound how much two masks can share.

In no column can two masks share more pixels than the one that has fewer there, and so for rows. Summed up, this is a
bound on their intersection, tighter than that of boxes and areas and without a walk along their runs. Columns and rows
are put together in bins, which loosens the bound a little. Shape letters: N masks, E pairs, B bins an axis, H W image.
"""

from collections.abc import Sequence

import numpy as np

from sharpmask.proposals.rle import Rle, all_runs_of_ones, column_runs

_BINS = 64
# Pairs looked at at a time, 1 kB each.
_PIECE = 65_536


class Profiles:
    """Pixels of N masks of one size in each bin of columns and of rows.

    Attributes:
        pixels: (N, 2, B), columns first.
    """

    def __init__(self, rles: Sequence[Rle]) -> None:
        count = len(rles)
        height, width = rles[0]["size"] if count else (1, 1)
        column, top, bottom = column_runs(*all_runs_of_ones(rles), height)  # columns of images that follow one another
        mask, column = column // width, column % width
        across = np.bincount(mask * _BINS + column // _bin(width), bottom - top, count * _BINS)
        # A piece adds to every row from its top on what it takes away from its bottom on. What begins within a bin has
        # the rest of this bin and all of the later ones.
        side = _bin(height)
        change = np.zeros(count * (_BINS + 2))
        for edge, sign in ((top, 1), (bottom, -1)):
            place = mask * (_BINS + 2) + edge // side
            change += np.bincount(place, sign * (side - edge % side), change.size)
            change += np.bincount(place + 1, sign * (edge % side), change.size)
        down = change.reshape(count, -1).cumsum(axis=1)[:, :_BINS]
        kind = np.int32 if height * width < 2**31 else np.int64
        self.pixels = np.stack([across.reshape(count, _BINS), down], axis=1).astype(kind)

    def most(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(E,) the largest intersections that masks `first` (E,) and `second` (E,) can have, in pixels."""
        parts = [np.zeros(0, np.int64)]
        for begin in range(0, len(first), _PIECE):
            part = slice(begin, begin + _PIECE)
            shared = np.minimum(self.pixels[first[part]], self.pixels[second[part]])
            parts.append(shared.sum(axis=2).min(axis=1))
        return np.concatenate(parts)


def _bin(size: int) -> int:
    return -(-size // _BINS)
