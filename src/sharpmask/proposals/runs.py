"""What the runs of masks tell without decoding them: how much of an outline lies on the image's border, and one label
for each pixel.

Shape letters: N masks, H W image, R runs of ones.
"""

from collections.abc import Sequence

import numpy as np

from sharpmask.proposals.rle import Rle, runs_of_ones


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
