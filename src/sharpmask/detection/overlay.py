"""Detections drawn over their image: translucent fills, outlines, and the class with its probability."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sharpmask.detection.result import Detections
from sharpmask.images import ImageSource, read_image
from sharpmask.proposals.overlay import LONGEST_SIDE, bright_colour, drawn_mask, mask_edge, shrunk

_FILL = 0.42


def draw_detections(
    image: ImageSource, detections: Detections, *, min_score: float = 0.5, count: int = 30
) -> Image.Image:
    """The image with its best detections, all of a class in one colour.

    Args:
        image: the image they were found in.
        min_score: leave out those that are less sure.
        count: detections to draw at most.

    Raises:
        ImageError: the image cannot be read.
        ValueError: the detections belong to an image of another size.
    """
    pixels = read_image(image)
    if pixels.shape[:2] != tuple(detections.image_size):
        raise ValueError(f"detections of {detections.image_size} (H, W) do not fit an image of {pixels.shape[:2]}")
    pixels = shrunk(pixels, LONGEST_SIDE)
    height, width = pixels.shape[:2]
    chosen = detections.filter(min_score=min_score)[:count]
    masks = [drawn_mask(rle, (width, height)) for rle in chosen.rles]
    colours = [bright_colour(int(class_id)) for class_id in chosen.class_ids]
    canvas = pixels.astype(np.float32)
    thickness = max(1, round(max(width, height) / 400))
    for place in sorted(range(len(chosen)), key=lambda place: -int(masks[place].sum())):  # large ones first
        canvas[masks[place]] += _FILL * (colours[place] - canvas[masks[place]])
    for mask, colour in zip(reversed(masks), reversed(colours), strict=True):
        edge = mask_edge(mask, thickness)
        canvas[edge] += 0.92 * (colour - canvas[edge])
    picture = Image.fromarray(canvas.clip(0, 255).astype(np.uint8))
    _draw_names(picture, chosen, masks, colours)
    return picture


def _draw_names(
    picture: Image.Image, detections: Detections, masks: Sequence[np.ndarray], colours: Sequence[np.ndarray]
) -> None:
    """A small label at the top of each mask, the best ones last and so in front."""
    if min(picture.size) < 40:
        return
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(9, round(max(picture.size) / 55)))
    for place in reversed(range(len(detections))):
        rows, columns = np.flatnonzero(masks[place].any(axis=1)), np.flatnonzero(masks[place].any(axis=0))
        if not len(rows):
            continue
        text = f"{detections.names[place]} {100 * detections.scores[place]:.0f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        width, height = right - left + 6, bottom - top + 6
        x = min(max(0, (columns[0] + columns[-1]) / 2 - width / 2), picture.width - width)
        y = min(max(0, rows[0] - height / 2), picture.height - height)
        fill = tuple(int(value * 0.4) for value in colours[place])
        draw.rounded_rectangle((x, y, x + width, y + height), radius=3, fill=fill)
        draw.text((x + 3 - left, y + 3 - top), text, fill="white", font=font)
