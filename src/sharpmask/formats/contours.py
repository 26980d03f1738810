"""Exact outlines of masks, as polygons along the edges of pixels.

Coordinates are continuous, (x, y) with y downwards; pixel (column c, row r) spans c … c + 1 and r … r + 1, so an
outline runs along whole numbers and a mask of one pixel has the area 1. Filling the outlines (even-odd or non-zero
rule, a pixel being set where its centre lies inside) gives back the very mask.

Every ring is simple: where a mask touches itself at the corner of two diagonal pixels, the pixels do not count as
connected and the outline is cut there. Shells have a positive and holes a negative area by the shoelace formula over
(x, y); shells therefore run clockwise on a screen. A hole touches its shell at one corner at most.
"""

from typing import NamedTuple

import numpy as np

from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import column_runs, runs_of_ones


class Part(NamedTuple):
    """A connected piece of a mask: its outer ring (n,2) and the rings (m,2) of its holes, float64 xy, not closed
    (the last point differs from the first)."""

    shell: np.ndarray
    holes: list[np.ndarray]


# By the set pixels around a grid point, 1 NW + 2 NE + 4 SW + 8 SE: how many corners of outlines lie there …
_CORNERS = np.array([0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0])
# … and whether the outline, which keeps the mask on its right-hand side, leaves the point along a row.
_LEAVES_ALONG_ROW = np.isin(np.arange(16), [1, 8, 9, 11, 13])
# Whether the edge along the column lies below the point; of two corners at one point, for the western one.
_EDGE_BELOW = np.isin(np.arange(16), [4, 6, 7, 8, 11])


def outline(proposals: Proposals, index: int, tolerance: float = 0.0) -> list[Part]:
    """The outline of one mask in image coordinates, largest part first; [] for an empty mask.

    Args:
        proposals: the masks.
        index: which.
        tolerance: pixels by which `simplify` may move the outline; 0 is exact.
    """
    if proposals.areas[index] == 0:
        return []
    rle = proposals.rles[index]
    parts = _parts(*column_runs(*runs_of_ones(rle), rle["size"][0]))
    return [simplify(part, tolerance) for part in parts] if tolerance > 0 else parts


def trace(mask: np.ndarray, origin: tuple[int, int] = (0, 0)) -> list[Part]:
    """The parts of a mask (H,W) bool, largest shell first; `origin` (x, y) is added to the coordinates."""
    changes = np.diff(mask.T.astype(np.int8), prepend=0, append=0)
    column, begin = np.nonzero(changes == 1)
    shift = np.array(origin, np.float64)
    return [
        Part(part.shell + shift, [hole + shift for hole in part.holes])
        for part in _parts(column, begin, np.nonzero(changes == -1)[1])
    ]


def _parts(column: np.ndarray, begin: np.ndarray, end: np.ndarray) -> list[Part]:
    """The parts of a mask given by the runs of its columns (see `rle.column_runs`), largest shell first."""
    rings = _rings(*_corners(column, begin, end))
    areas = [signed_area(ring) for ring in rings]
    shells = sorted((i for i, area in enumerate(areas) if area > 0), key=lambda i: -areas[i])
    holes: dict[int, list[int]] = {i: [] for i in shells}
    boxes = {i: (*rings[i].min(axis=0), *rings[i].max(axis=0)) for i in shells}
    for i, area in enumerate(areas):
        if area > 0:
            continue
        # The pixel above the hole's highest edge belongs to the mask, and to the part that the hole is in.
        x, y = _above_top_edge(rings[i])
        around = [s for s in shells if boxes[s][0] < x < boxes[s][2] and boxes[s][1] < y < boxes[s][3]]
        if len(around) > 1:
            around = [s for s in around if contains(rings[s], x, y)]
        holes[around[-1]].append(i)  # the smallest that holds it
    return [Part(rings[s], [rings[i] for i in holes[s]]) for s in shells]


def signed_area(ring: np.ndarray) -> float:
    """Area by the shoelace formula over (x, y); positive for shells."""
    x, y = ring[:, 0], ring[:, 1]
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def contains(ring: np.ndarray, x: float, y: float) -> bool:
    """Whether a point lies inside a ring; on the ring is undefined."""
    x0, y0 = ring[:, 0], ring[:, 1]
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    crosses = (y0 > y) != (y1 > y)
    at = x0[crosses] + (y - y0[crosses]) * (x1[crosses] - x0[crosses]) / (y1[crosses] - y0[crosses])
    return bool(np.count_nonzero(at > x) % 2)


def _corners(column: np.ndarray, begin: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the outline turns: x, y and code of each grid point that is a corner, row by row from left to right.

    Found from the runs alone, so that the cost does not grow with the mask's area.
    """
    stride = int(end.max(initial=0)) + 1  # numbers the grid points of a column
    # Where columns change downwards: +1 a run begins, -1 it ends. A column lies east of one grid line, west of another.
    change = np.repeat(np.array([1, -1], np.int8), column.size)
    place = np.concatenate([column * stride + begin, column * stride + end])
    points, index = np.unique(np.concatenate([place + stride, place]), return_inverse=True)
    west, east = np.zeros(points.size, np.int8), np.zeros(points.size, np.int8)
    west[index[: place.size]] = east[index[place.size :]] = change
    starts, ends = column * stride + begin, column * stride + end

    def inside(places: np.ndarray) -> np.ndarray:
        """Whether the pixel below each grid point, in the column to the east of it, belongs to the mask."""
        return places < np.append(ends, -1)[np.searchsorted(starts, places, side="right") - 1]

    southwest, southeast = inside(points - stride), inside(points)
    northwest, northeast = southwest ^ (west != 0), southeast ^ (east != 0)
    code = northwest + 2 * northeast + 4 * southwest + 8 * southeast
    turns = _CORNERS[code] > 0
    x, y = np.divmod(points[turns], stride)
    order = np.lexsort((x, y))
    return x[order], y[order], code[turns][order]


def _rings(x: np.ndarray, y: np.ndarray, code: np.ndarray) -> list[np.ndarray]:
    """All simple rings of a mask, from its corners (see `_corners`)."""
    number = _CORNERS[code]
    corner = np.repeat(np.arange(x.size), number)
    second = np.append(False, corner[1:] == corner[:-1])
    code, x, y = code[corner], x[corner], y[corner]
    below = _EDGE_BELOW[code] ^ second
    # In reading order the corners of a row are begin, end, begin, end, … of its edges; so they are down each column.
    partner = np.arange(corner.size) ^ 1
    by_column = np.lexsort((below, y, x))
    vertical = np.empty_like(partner)
    vertical[by_column] = by_column[partner]
    following = np.where(_LEAVES_ALONG_ROW[code], partner, vertical).tolist()
    doubled = set(np.flatnonzero(number[corner] == 2).tolist())
    xy = np.stack([x, y], axis=1).astype(np.float64)
    rings = []
    seen = bytearray(corner.size)
    for begin in range(corner.size):
        if seen[begin]:
            continue
        ring, at, crossed = [], begin, False
        while not seen[at]:
            seen[at] = 1
            ring.append(at)
            crossed = crossed or at in doubled
            at = following[at]
        for simple in _cut_at_repeats(ring, corner) if crossed else [ring]:
            rings.append(xy[simple])
    return rings


def _cut_at_repeats(ring: list[int], place: np.ndarray) -> list[list[int]]:
    """Cut a ring that passes a point twice into rings that do not."""
    rings: list[list[int]] = []
    path: list[int] = []
    position: dict[int, int] = {}
    for corner in ring:
        point = int(place[corner])
        if point in position:
            loop = path[position[point] :]
            del path[position[point] :]
            for other in loop:
                del position[int(place[other])]
            rings.append(loop)
        position[point] = len(path)
        path.append(corner)
    return [*rings, path]


def _above_top_edge(ring: np.ndarray) -> tuple[float, float]:
    """The centre of a pixel that lies on a ring's highest edge from above."""
    top = ring[:, 1].min()
    high = ring[:, 1] == top
    edge = np.flatnonzero(high & np.roll(high, -1))[0]
    a, b = ring[edge, 0], ring[(edge + 1) % len(ring), 0]
    return min(a, b) + 0.5, top - 0.5


def simplify(part: Part, tolerance: float) -> Part:
    """Fewer points by the method of Douglas and Peucker: no left-out point is farther than `tolerance` pixels from the
    new outline. A shell keeps at least three points (else it stays as it is), holes that vanish are dropped. With
    a tolerance that is large for the shape the new rings may cross."""
    shell = _simplify_ring(part.shell, tolerance)
    if len(shell) < 3:
        shell = part.shell
    holes = [_simplify_ring(hole, tolerance) for hole in part.holes]
    return Part(shell, [hole for hole in holes if len(hole) >= 3])


def _simplify_ring(ring: np.ndarray, tolerance: float) -> np.ndarray:
    """The points to keep of a ring: the ends are the first point and the one farthest from it."""
    far = int(((ring - ring[0]) ** 2).sum(axis=1).argmax())
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), bool)
    ends = np.array([0, far, len(ring)])  # of the pieces still to be looked at, all together at each level
    while ends.size > 1:
        keep[ends] = True
        piece = np.repeat(np.arange(ends.size - 1), np.diff(ends))
        start = closed[ends[:-1]]
        along = closed[ends[1:]] - start
        inner = closed[:-1] - start[piece]
        length = (along**2).sum(axis=1)
        t = (inner * along[piece]).sum(axis=1) / np.where(length > 0, length, 1)[piece]
        distance = ((inner - t.clip(0, 1)[:, None] * along[piece]) ** 2).sum(axis=1)
        worst = np.maximum.reduceat(distance, ends[:-1])
        split = worst > tolerance * tolerance
        if not split.any():
            break
        at = np.flatnonzero((distance == worst[piece]) & split[piece])
        new = at[np.diff(piece[at], prepend=-1) > 0]  # the first of each piece
        ends = np.sort(np.concatenate([ends, new]))
    return ring[keep[:-1]]
