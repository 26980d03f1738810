"""True objects and the masks that match them, drawn over their photo."""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from sharpmask.evaluation.masks import Rle
from sharpmask.proposals.overlay import mask_edge

RED = np.array([255.0, 20.0, 20.0], np.float32)
_FILL, _LINE = 0.45, 0.95
# Of a sheet, in pixels: the height of its pictures, its width, and what lies between the pictures of two photos.
_TILE, _SHEET, _GAP = 200, 1900, 12


def draw_truth(pixels: np.ndarray, objects: Sequence[Rle]) -> Image.Image:
    """The photo (H, W, 3) with the outline and fill of every true object, each in its colour."""
    return _paint(pixels, list(zip(_decoded(objects), _colours(len(objects)), strict=True)), [])


def draw_matches(pixels: np.ndarray, objects: Sequence[Rle], matches: Sequence[Rle | None]) -> Image.Image:
    """The photo with each object's matching mask in that object's colour; objects without one are outlined in red."""
    colours = _colours(len(objects))
    masks = _decoded([rle for rle in matches if rle is not None])
    found = [colour for colour, rle in zip(colours, matches, strict=True) if rle is not None]
    missed = _decoded([rle for rle, match in zip(objects, matches, strict=True) if match is None])
    return _paint(pixels, list(zip(masks, found, strict=True)), missed)


def draw_sheet(photos: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """All pictures on one white sheet: those of a photo side by side, as many photos in a row as have room."""
    strips = [[_of_height(picture, _TILE) for picture in pictures] for pictures in photos]
    places: list[tuple[Image.Image, int, int]] = []
    x = y = right = 0
    for strip in strips:
        width = sum(picture.width + 2 for picture in strip) - 2
        if x and x + width > _SHEET:
            x, y = 0, y + _TILE + _GAP
        for picture in strip:
            places.append((picture, x, y))
            right = max(right, x + picture.width)
            x += picture.width + 2
        x += _GAP - 2
    sheet = Image.new("RGB", (right, y + _TILE), "white")
    for picture, x, y in places:
        sheet.paste(picture, (x, y))
    return sheet


def _of_height(picture: Image.Image, height: int) -> Image.Image:
    width = max(1, round(picture.width * height / picture.height))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _decoded(rles: Sequence[Rle]) -> list[np.ndarray]:
    return [coco_mask.decode(rle).astype(bool) for rle in rles]


def _paint(pixels: np.ndarray, shapes: list[tuple[np.ndarray, np.ndarray]], missed: list[np.ndarray]) -> Image.Image:
    canvas = pixels.astype(np.float32)
    thickness = max(1, round(max(pixels.shape[:2]) / 320))
    shapes = sorted(shapes, key=lambda shape: -int(shape[0].sum()))  # parts in front of wholes stay visible
    for mask, colour in shapes:
        canvas[mask] += _FILL * (colour - canvas[mask])
    edges = [(mask_edge(mask, thickness), colour) for mask, colour in shapes]
    edges += [(mask_edge(mask, thickness + 1), RED) for mask in missed]
    for edge, colour in edges:
        canvas[edge] += _LINE * (colour - canvas[edge])
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def _colours(count: int) -> list[np.ndarray]:
    """Well separated colours, none of them near red, which means missed."""
    hues = [0.1 + 0.8 * ((0.55 + 0.61803398875 * number) % 1) for number in range(count)]
    return [np.array(colorsys.hsv_to_rgb(hue, 0.8, 1.0), np.float32) * 255 for hue in hues]
