"""Label Studio: one file, `label_studio.json`, a list of tasks with predictions, to be imported into a project.

Brush masks (the default; `<BrushLabels>` in the labelling set-up) or polygons (`<PolygonLabels>`; in per cent of the
photo's sides, a part each, holes joined to the outside by cuts of no width). Result ids are `p<rank>`, for polygons
`p<rank>-<part>`, ranks and parts from 1. The task's image address is `image_prefix` + the file name, without
folders, its special characters as in URLs where the prefix begins with / or http.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from sharpmask.files import atomic_write
from sharpmask.formats.contours import outline
from sharpmask.formats.joining import without_holes
from sharpmask.formats.numbers import exact
from sharpmask.formats.options import FormatOptions
from sharpmask.proposals.folder import Photo, Write
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import decode_window


@contextmanager
def open_label_studio(output: Path, options: FormatOptions) -> Iterator[Write]:
    empty = True
    with atomic_write(output / "label_studio.json") as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("[")

        def write(photo: Photo, proposals: Proposals) -> None:
            nonlocal empty
            shapes = _polygons if options.shapes == "polygons" else _brushes
            results = [
                {
                    "from_name": options.from_name,
                    "to_name": options.to_name,
                    "original_height": photo.size[0],
                    "original_width": photo.size[1],
                    "image_rotation": 0,
                    "score": exact(proposals.scores[index]),
                    **shape,
                }
                for index, shape in shapes(proposals, options)
            ]
            prediction = {
                "model_version": "sharpmask",
                "score": exact(proposals.scores[0]) if len(proposals) else 0.0,
                "result": results,
            }
            image = options.image_prefix + _address(Path(photo.record["file_name"]).name, options.image_prefix)
            task = {"data": {"image": image}, "predictions": [prediction]}
            file.write(("\n" if empty else ",\n") + json.dumps(task, separators=(",", ":"), ensure_ascii=False))
            empty = False

        yield write
        file.write("\n]\n")


def _brushes(proposals: Proposals, options: FormatOptions) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, rle in enumerate(proposals.rles):
        window = tuple(int(side) for side in proposals.boxes[index])
        lengths = image_runs(decode_window(rle, *window), window[0], window[1], proposals.image_size)
        value = {"format": "rle", "rle": brush_rle(lengths).tolist(), "brushlabels": [options.label]}
        yield index, {"id": f"p{index + 1}", "type": "brushlabels", "value": value}


def _polygons(proposals: Proposals, options: FormatOptions) -> Iterator[tuple[int, dict[str, Any]]]:
    height, width = proposals.image_size
    for index in range(len(proposals)):
        for number, part in enumerate(outline(proposals, index, options.simplify), start=1):
            points = (without_holes(part) * (100 / width, 100 / height)).round(7).tolist()
            value = {"points": points, "closed": True, "polygonlabels": [options.label]}
            yield index, {"id": f"p{index + 1}-{number}", "type": "polygonlabels", "value": value}


# Bits of the four kinds of run length that a stream declares; lengths are stored less 1.
_SIZES = np.array([3, 4, 8, 16])


def _address(name: str, prefix: str) -> str:
    """The photo's name as a part of an address: quoted where the prefix makes it one that is read as a URL."""
    return quote(name) if prefix.startswith(("/", "http://", "https://")) else name


def image_runs(window: np.ndarray, left: int, top: int, size: tuple[int, int]) -> np.ndarray:
    """Run lengths (K,) of an image of `size` (H, W) row by row, zeros first, of which a part (h, w) is given and the
    rest is zero; the image itself is not made."""
    height, width = size
    steps = np.diff(np.pad(np.asarray(window, np.int8), ((0, 0), (1, 1))), axis=1)
    starts, ends = (
        (rows + top) * width + columns + left for rows, columns in (np.nonzero(steps == 1), np.nonzero(steps == -1))
    )
    # Where one run ends and the next begins (a row's end and the start of the one below) they are one.
    edges, times = np.unique(np.concatenate([starts, ends]), return_counts=True)
    edges = edges[times == 1]
    return np.diff(np.concatenate([[0], edges, [height * width]]))


def brush_rle(pixels: np.ndarray) -> np.ndarray:
    """Label Studio's brush code of a mask with the run lengths `pixels` (row by row, zeros first), uint8 (K,).

    It is the packed stream of `@thi.ng/rle-pack` over the mask as RGBA bytes, row by row, each of a pixel's four bytes
    being 255 where it is set: 32 bits number of bytes, 5 bits word size - 1, four times 4 bits size - 1, then for each
    run 1 bit "repeated", 2 bits kind of length, the length - 1, and the word. Only repeated runs are written here.
    """
    lengths = pixels * 4
    values = np.arange(lengths.size) % 2 * 255
    lengths, values = lengths[lengths > 0], values[lengths > 0]
    longest = 1 << int(_SIZES[-1])
    pieces = -(-lengths // longest)
    run = np.repeat(np.arange(lengths.size), pieces)
    left = lengths[run] - longest * (np.arange(run.size) - np.repeat(pieces.cumsum() - pieces, pieces))
    stored = np.minimum(left, longest) - 1
    kind = np.searchsorted(1 << _SIZES, stored, side="right")
    bits = 1 + 2 + _SIZES[kind] + 8
    word = ((4 + kind) << (_SIZES[kind] + 8)) | (stored << 8) | values[run]
    # Each word's bits, most significant first, one after the other.
    number = np.repeat(np.arange(word.size), bits)
    place = np.repeat(bits.cumsum(), bits) - 1 - np.arange(number.size)
    stream = (word[number] >> place) & 1
    header = f"{int(pixels.sum()) * 4:032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in _SIZES)
    return np.packbits(np.concatenate([[int(bit) for bit in header], stream]).astype(np.uint8))
