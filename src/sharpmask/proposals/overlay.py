"""Proposals drawn over their image: translucent fills, outlines and the rank of each."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sharpmask.images import ImageSource, read_image
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import Rle, column_runs, runs_of_ones

LONGEST_SIDE = 2048
_FILL = 0.42
_CANDIDATES = 200  # how many of the best proposals are looked through for `count` different ones


def draw_overlay(
    image: ImageSource, proposals: Proposals, count: int = 16, *, nms: float = 0.5, longest_side: int = LONGEST_SIDE
) -> Image.Image:
    """The image with its best proposals; similar masks are drawn once, so that the picture stays readable.

    Args:
        image: the image the proposals were made from.
        proposals: best first; those whose mask has an IoU above `nms` with a better one are left out of the drawing.
        count: masks to draw at most. The numbers are ranks within `proposals`, counted from 1.
        longest_side: a larger image is drawn smaller, so that pictures of huge images stay usable.

    Returns: an RGB image.

    Raises:
        ImageError: the image cannot be read.
        ValueError: the proposals belong to an image of another size.
    """
    pixels = read_image(image)
    height, width = pixels.shape[:2]
    if (height, width) != tuple(proposals.image_size):
        raise ValueError(f"proposals of {proposals.image_size} (H, W) do not fit an image of {(height, width)}")
    return draw_on(shrunk(pixels, longest_side), proposals, count, nms=nms)


def shrunk(pixels: np.ndarray, longest_side: int = LONGEST_SIDE) -> np.ndarray:
    """Pixels (H,W,3), made smaller where a side is longer: (h,w,3) uint8."""
    height, width = pixels.shape[:2]
    shrink = min(1.0, longest_side / max(height, width))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def draw_on(
    pixels: np.ndarray,
    proposals: Proposals,
    count: int = 16,
    *,
    nms: float = 0.5,
    numbers: Sequence[int] | np.ndarray | None = None,
) -> Image.Image:
    """The best proposals on the picture (h,w,3) uint8 of their image at any size; see `draw_overlay`.

    Args:
        numbers: what is written on each of the proposals, and gives it its colour; None: its rank.
    """
    canvas = pixels.astype(np.float32)
    size = (pixels.shape[1], pixels.shape[0])
    chosen = proposals[:_CANDIDATES].nms_ranks(nms)[:count]
    shapes = {rank: drawn_mask(proposals.rles[rank], size) for rank in chosen}
    shapes = {rank: mask for rank, mask in shapes.items() if mask.any()}
    texts = {rank: int(rank + 1 if numbers is None else numbers[rank]) for rank in shapes}
    colours = {rank: bright_colour(place if numbers is None else texts[rank]) for place, rank in enumerate(shapes)}
    # Large masks first: a part in front of a whole stays visible.
    order = sorted(shapes, key=lambda rank: -int(shapes[rank].sum()))
    thickness = max(1, round(max(size) / 400))
    for rank in order:
        canvas[shapes[rank]] += _FILL * (colours[rank] - canvas[shapes[rank]])
    for rank in order:
        edge = mask_edge(shapes[rank], thickness)
        canvas[edge] += 0.92 * (colours[rank] - canvas[edge])
    picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    _draw_numbers(picture, shapes, texts, colours)
    return picture


def drawn_mask(rle: Rle, size: tuple[int, int]) -> np.ndarray:
    """A mask at the size (width, height) of the drawing: bool (h,w), each pixel as the mask is at its centre. Costs
    the mask's runs and the drawing, whatever the size of the image."""
    (height, width), (w, h) = rle["size"], size
    column, begin, end = column_runs(*runs_of_ones(rle), height)
    at = ((np.arange(w) + 0.5) * width / w).astype(np.int64)  # the image's column for each of the drawing's
    first = np.searchsorted(column, at)
    count = np.searchsorted(column, at, side="right") - first
    run = np.arange(count.sum()) + np.repeat(first - (count.cumsum() - count), count)
    change = np.zeros((w, h + 1), np.int32)
    drawn = np.repeat(np.arange(w), count)
    np.add.at(change, (drawn, np.ceil(begin[run] * h / height - 0.5).astype(np.int64)), 1)
    np.add.at(change, (drawn, np.ceil(end[run] * h / height - 0.5).astype(np.int64)), -1)
    return change[:, :-1].cumsum(axis=1).T > 0


def mask_edge(mask: np.ndarray, thickness: int) -> np.ndarray:
    """The pixels of the mask within `thickness` of its outside; the border of the image counts as outside."""
    inner = np.pad(mask, 1)
    for _ in range(thickness):
        core = inner.copy()
        core[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        inner = core
    return mask & ~inner[1:-1, 1:-1]


def bright_colour(number: int) -> np.ndarray:
    """Well separated bright colours: hues by the golden ratio, so that neighbouring numbers differ most."""
    saturation, value = [(0.85, 1.0), (0.6, 1.0), (0.9, 0.85)][number // 6 % 3]
    return np.array(colorsys.hsv_to_rgb((0.58 + 0.61803398875 * number) % 1, saturation, value), np.float32) * 255


def _draw_numbers(
    picture: Image.Image, shapes: dict[int, np.ndarray], texts: dict[int, int], colours: dict[int, np.ndarray]
) -> None:
    """A small numbered disc inside each mask, the best ranks on top."""
    if min(picture.size) < 40:
        return
    draw = ImageDraw.Draw(picture)
    height = max(9, round(max(picture.size) / 60))
    font = ImageFont.load_default(height)
    for rank in sorted(shapes, reverse=True):
        x, y = _label_place(shapes[rank])
        text = str(texts[rank])
        left, top, right, bottom = draw.textbbox((x, y), text, font=font, anchor="mm")
        margin = max(2, height // 4)
        box = (left - margin, top - margin, right + margin, bottom + margin)
        fill = tuple(int(value * 0.35) for value in colours[rank])
        draw.rounded_rectangle(box, radius=margin + 1, fill=fill)
        draw.text((x, y), text, fill="white", font=font, anchor="mm")


def _label_place(mask: np.ndarray) -> tuple[int, int]:
    """A point (x, y) well inside the mask: the middle of the last pixels that repeated erosion leaves."""
    step = max(1, max(mask.shape) // 160)  # coarse is enough, and keeps large pictures fast
    inner = np.pad(mask[::step, ::step], 1)
    if not inner.any():
        y, x = np.argwhere(mask)[0]
        return int(x), int(y)
    while True:
        core = inner.copy()
        core[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
        if not core.any():
            break
        inner = core
    points = np.argwhere(inner[1:-1, 1:-1])
    y, x = points[np.abs(points - points.mean(axis=0)).sum(axis=1).argmin()] * step
    return int(x), int(y)
