"""One closed polygon for a mask with holes or several parts, for formats whose polygons cannot have them.

Rings are joined by bridges of no width, walked once in each direction, as a keyhole joins a hole to the outside: the
winding number of no point changes, so that a filled polygon, by the even-odd or the non-zero rule, is the same mask. A
program that also paints the outline shows a bridge as a line; those of holes run within the mask wherever possible.
"""

import numpy as np

from sharpmask.formats.contours import Part


def without_holes(part: Part) -> np.ndarray:
    """The polygon (n,2) of a part with its holes joined to the shell."""
    merged = part.shell
    # From left to right: what a hole's bridge meets on its left is part of the polygon already.
    for hole in sorted(part.holes, key=lambda ring: (ring[:, 0].min(), ring[:, 1].min())):
        start = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
        hole = np.roll(hole, -start, axis=0)
        merged = _join(merged, *_meet_on_the_left(merged, hole[0]), hole)
    return merged


def one_polygon(parts: list[Part]) -> np.ndarray:
    """The polygon (n,2) of a whole mask: parts without holes, joined where they are closest; (0,2) without parts."""
    rings = [without_holes(part) for part in parts]
    if not rings:
        return np.zeros((0, 2))
    merged, waiting = rings[0], rings[1:]
    while waiting:
        gaps = [_closest(merged, ring) for ring in waiting]
        nearest = min(range(len(waiting)), key=lambda i: gaps[i][0])
        _, here, there = gaps[nearest]
        ring = np.roll(waiting.pop(nearest), -there, axis=0)
        merged = _join(merged, here, merged[here], ring)
    return merged


def _join(polygon: np.ndarray, index: int, point: np.ndarray, ring: np.ndarray) -> np.ndarray:
    """Insert a walk from `point`, which lies on the edge after `polygon[index]`, round `ring` and back."""
    bridge = [point[None], ring, ring[:1]]
    if not np.array_equal(point, ring[0]):
        bridge.append(point[None])
    return np.concatenate([polygon[: index + 1], *bridge, polygon[index + 1 :]])


def _meet_on_the_left(polygon: np.ndarray, point: np.ndarray) -> tuple[int, np.ndarray]:
    """Where the line from `point` to the left first meets the polygon: edge and place; else its closest corner."""
    a, b = polygon, np.roll(polygon, -1, axis=0)
    crosses = np.flatnonzero((a[:, 1] <= point[1]) != (b[:, 1] <= point[1]))
    a, b = a[crosses], b[crosses]
    at = a[:, 0] + (point[1] - a[:, 1]) * (b[:, 0] - a[:, 0]) / (b[:, 1] - a[:, 1])
    left = np.flatnonzero(at <= point[0])
    if left.size == 0:
        index = int(((polygon - point) ** 2).sum(axis=1).argmin())
        return index, polygon[index]
    best = left[at[left].argmax()]
    return int(crosses[best]), np.array([at[best], point[1]])


def _closest(first: np.ndarray, second: np.ndarray) -> tuple[float, int, int]:
    """Squared distance of the two closest corners of two rings, and which they are."""
    best = (np.inf, 0, 0)
    step = max(1, 1_000_000 // len(first))
    for begin in range(0, len(second), step):
        distance = ((first[:, None] - second[None, begin : begin + step]) ** 2).sum(axis=2)
        here, there = np.unravel_index(int(distance.argmin()), distance.shape)
        if distance[here, there] < best[0]:
            best = (float(distance[here, there]), int(here), begin + int(there))
    return best
