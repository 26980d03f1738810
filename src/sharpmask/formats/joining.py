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
    """The polygon (n,2) of a whole mask: parts without holes, joined where they are closest; (0,2) without parts.

    The bridges are a minimal spanning tree over the parts, between corners, grown from the first part.
    """
    rings = [without_holes(part) for part in parts]
    if len(rings) < 2:
        return rings[0] if rings else np.zeros((0, 2))
    points = np.concatenate(rings)
    owner = np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    first = np.flatnonzero(np.diff(owner, prepend=-1))
    # For each corner: the closest one in the tree so far.
    gap, closest = np.full(len(points), np.inf), np.zeros(len(points), np.int64)
    bridges: list[tuple[int, int]] = []  # (corner in the tree, corner of the ring that joins it), in order
    newest = 0
    for _ in range(len(rings) - 1):
        gap[owner == newest] = np.inf
        waiting = np.flatnonzero(gap < np.inf) if bridges else np.flatnonzero(owner != newest)
        distance, nearest = _nearest(points[waiting], rings[newest])
        nearer = distance < gap[waiting]
        gap[waiting[nearer]] = distance[nearer]
        closest[waiting[nearer]] = first[newest] + nearest[nearer]
        best = int(gap.argmin())
        bridges.append((int(closest[best]), best))
        newest = int(owner[best])
    # From the last on, so that a ring has all its own branches when it is inserted.
    branches: dict[int, list[np.ndarray]] = {}
    for here, there in reversed(bridges):
        polygon = _with_branches(points, first[owner[there]], len(rings[owner[there]]), there, branches)
        branches.setdefault(here, []).append(np.concatenate([polygon, polygon[:1], points[here : here + 1]]))
    return _with_branches(points, 0, len(rings[0]), 0, branches)


def _with_branches(
    points: np.ndarray, first: int, count: int, start: int, branches: dict[int, list[np.ndarray]]
) -> np.ndarray:
    """A ring from its corner `start` on, with a walk along each branch where it leaves."""
    walk = []
    for step in range(count):
        corner = first + (start - first + step) % count
        walk += [points[corner : corner + 1], *branches.get(corner, [])]
    return np.concatenate(walk)


def _nearest(points: np.ndarray, ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of `points` (n,2): the squared distance to the closest corner of a ring, and which that is."""
    distances, indices = [], []
    step = max(1, 1_000_000 // len(ring))
    for begin in range(0, len(points), step):
        squared = ((points[begin : begin + step, None] - ring) ** 2).sum(axis=2)
        index = squared.argmin(axis=1)
        indices.append(index)
        distances.append(squared[np.arange(len(index)), index])
    return np.concatenate(distances), np.concatenate(indices)


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
