"""The best windows of all scales, and what their masks are made from, as ONNX operators.

The maps of all scales are laid end to end, so that one gather takes the windows of all scales at once.

Shape letters: S scales, N windows, T cells of all scales, E encoding length, C channels of a skip, m side of a crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sharpmask.export.builder import GraphBuilder
from sharpmask.export.pyramid import Level
from sharpmask.networks.specs import ModelSpec

_FLOAT, _INT64 = 1, 7


@dataclass(frozen=True)
class Selection:
    """The N best windows, best first: score logits, number of each in the order of `lay_cells`, scale, row, column."""

    logits: str
    numbers: str
    scales: str
    rows: str
    cols: str


def lay_cells(b: GraphBuilder, maps: Sequence[str], levels: Sequence[Level]) -> str:
    """The cells of all scales (1,C,h,w), without those beyond the image, one after the other, rows first: (T,C)."""
    laid = []
    for values, level in zip(maps, levels, strict=True):
        own = b("Slice", values, [0, 0], b.vector(*level.cells), [2, 3])
        laid.append(b("Reshape", b("Transpose", own, perm=[0, 2, 3, 1]), b.vector(-1, b.size(values, 1))))
    return b("Concat", *laid, axis=0)


def select(b: GraphBuilder, score_logits: str, levels: Sequence[Level], count: int) -> Selection:
    """The best `count` cells, or all where there are fewer; equal scores in the order of scale, row and column.

    Args:
        score_logits: (T,) in the order of `lay_cells`.
    """
    # There are always `count` to choose from, so that the operator's K is a constant.
    filled = b("Concat", score_logits, np.full(count, -np.inf, np.float32), axis=0)
    best, order = b.several("TopK", filled, [count], outputs=2, axis=0, largest=1, sorted=1)
    there = b.vector(b("Min", b.size(score_logits, 0), count))
    best, order = (b("Slice", part, [0], there, [0]) for part in (best, order))
    begins = _begins(b, [b("Mul", *level.cells) for level in levels])  # (S,)
    reached = b("GreaterOrEqual", b("Unsqueeze", order, [1]), b("Unsqueeze", begins, [0]))  # (N,S)
    scales = b("Sub", b("ReduceSum", b("Cast", reached, to=_INT64), [1], keepdims=0), 1)
    local = b("Sub", order, b("Gather", begins, scales))
    width = b("Gather", b.vector(*(level.cells[1] for level in levels)), scales)
    rows = b("Div", local, width)
    return Selection(best, order, scales, rows, b("Sub", local, b("Mul", rows, width)))


def add_windows(
    b: GraphBuilder, chosen: Selection, levels: Sequence[Level], image_size: tuple[str, str], spec: ModelSpec
) -> str:
    """(N,4) float32 xyxy in image pixels, as `Grid.windows`."""
    begins, ends = [], []
    for axis, cells in ((1, chosen.cols), (0, chosen.rows)):
        sizes = b("Cast", b.vector(*(level.size[axis] for level in levels)), to=_FLOAT)
        pixels = b("Gather", b("Div", b("Cast", image_size[axis], to=_FLOAT), sizes), chosen.scales)
        middle = b("Cast", b("Mul", cells, spec.stride), to=_FLOAT)
        half = spec.patch_size / 2
        begins.append(b("Unsqueeze", b("Mul", b("Sub", middle, half), pixels), [1]))
        ends.append(b("Unsqueeze", b("Mul", b("Add", middle, half), pixels), [1]))
    return b("Concat", *begins, *ends, axis=1)


def crop_skips(
    b: GraphBuilder, maps: Sequence[str], chosen: Selection, levels: Sequence[Level], *, step: int, spec: ModelSpec
) -> str:
    """The windows' parts (N,C,m,m) of one skip, given at every scale as (1,C,H_i,W_i).

    Args:
        step: cells of the skip for one cell of the coarsest features.
    """
    channels = b.size(maps[0], 1)
    laid = [b("Reshape", b("Transpose", part, perm=[0, 2, 3, 1]), b.vector(-1, channels)) for part in maps]
    cells = b("Concat", *laid, axis=0)
    widths = b("Gather", b.vector(*(b.size(part, 3) for part in maps)), chosen.scales)  # (N,)
    begins = _begins(b, [b.size(part, 0) for part in laid])
    offset = np.arange(spec.grid_side * step)
    down = b("Add", b("Unsqueeze", b("Mul", chosen.rows, step), [1]), offset[None])  # (N,m)
    across = b("Add", b("Unsqueeze", b("Mul", chosen.cols, step), [1]), offset[None])
    lines = b(
        "Add", b("Mul", down, b("Unsqueeze", widths, [1])), b("Unsqueeze", b("Gather", begins, chosen.scales), [1])
    )
    places = b("Add", b("Unsqueeze", lines, [2]), b("Unsqueeze", across, [1]))  # (N,m,m)
    return b("Transpose", b("Gather", cells, places, axis=0), perm=[0, 3, 1, 2])


def _begins(b: GraphBuilder, lengths: Sequence[str]) -> str:
    """Where each of several parts begins when they are laid end to end: (S,)."""
    begins: list[str | int] = [0]
    for length in lengths[:-1]:
        begins.append(b("Add", begins[-1], length))
    return b.vector(*begins)
