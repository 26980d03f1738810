"""Results cut into pieces that are measured one by one, so that gigabytes of them need no more memory than a piece.

A COCO results file of 5,000 images with 1,000 masks each holds gigabytes of JSON. It is cut between two records, about
every 8 MB: at `},{` before the key with which the first record begins. That cannot be part of a text, where the key's
quote would be escaped, but a nested list may look so; then the piece before it is no whole JSON. If the first piece is
one, its end is a gap, so the second piece begins where a record does, and so on: pieces that can all be parsed are the
file. Those that cannot are joined with the next ones.

Parquet, one row a proposal, has pieces of its own: the chunks of `propose-bulk`, or a file's row groups.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sharpmask.errors import DataError, MissingExtraError
from sharpmask.evaluation.inputs import (
    Annotations,
    Detections,
    Grouped,
    ImageId,
    Record,
    Results,
    assert_same_images,
    damaged_rle,
    group_results,
    read_results,
)
from sharpmask.evaluation.masks import mask_shapes
from sharpmask.evaluation.matching import TOP, Part, match_image, without_objects

if TYPE_CHECKING:
    import pyarrow as pa

PIECE = 8 * 2**20  # bytes
_WINDOW = 2**16
_MARGIN = 1024  # no gap is longer
_FIRST_KEY = re.compile(rb'\[\s*\{\s*("(?:[^"\\]|\\.)*")')
_COLUMNS = ["image_id", "file_name", "width", "height", "score", "x", "y", "box_width", "box_height", "counts"]


@dataclass(frozen=True)
class Wanted:
    """What is measured: the annotations, "bbox" and/or "segm", and whether boxes may be those of the records."""

    truth: Annotations
    iou_types: tuple[str, ...]
    own_boxes: bool = True


@dataclass
class Outcome:
    """Of one piece: its results, those with masks, those with boxes, and what it says about each image; where images
    are known by their names, the names, too."""

    count: int
    masks: int
    boxes: int
    parts: dict[ImageId, Part]
    names: dict[ImageId, str] = field(default_factory=dict)


class NotWhole(Exception):
    """A piece that is no whole JSON: it was cut at the wrong place, or the file is damaged."""


@dataclass(frozen=True)
class Records:
    """Results in memory, all of them."""

    results: Results
    weight: int = 1

    def measure(self, wanted: Wanted, before: int = 0) -> Outcome:
        results = self.results
        grouped = Grouped(
            results.by_image,
            results.count,
            results.count if results.has_masks else 0,
            results.count if results.has_boxes else 0,
        )
        return _measure(grouped, results.source, wanted)


@dataclass(frozen=True)
class JsonPiece:
    """The records between two bytes of a COCO results file."""

    path: str
    begin: int
    end: int
    last: bool

    @property
    def weight(self) -> int:
        return self.end - self.begin

    def joined(self, other: "JsonPiece") -> "JsonPiece":
        """This and what follows it."""
        return replace(self, end=other.end, last=other.last)

    def measure(self, wanted: Wanted, before: int = 0) -> Outcome:
        """`before`: results before this piece, for messages. Raises NotWhole, DataError."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self.begin)
                text = file.read(self.end - self.begin)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        try:
            content = json.loads(b"[" + (text if self.last else text.rstrip()[:-1]) + b"]")  # without the comma
        except (ValueError, RecursionError) as error:
            raise NotWhole(f"{error}, counted from byte {self.begin}") from error
        del text
        return _measure(group_results(content, wanted.truth, self.path, before), self.path, wanted)


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file of proposals."""

    path: str
    group: int
    weight: int

    def measure(self, wanted: Wanted, before: int = 0) -> Outcome:
        from pyarrow import ArrowException, parquet

        try:
            table = parquet.ParquetFile(self.path).read_row_group(self.group, _COLUMNS)
        except (OSError, ArrowException) as error:
            raise _damaged(self.path, error) from error
        return _measure_table(table, self.path, wanted)


@dataclass(frozen=True)
class Chunk:
    """A chunk of a run of `propose-bulk`."""

    destination: str
    number: int
    weight: int

    def measure(self, wanted: Wanted, before: int = 0) -> Outcome:
        from sharpmask.bulk.results import chunk_name, read_proposals
        from sharpmask.bulk.storage import Place

        table = read_proposals(Place(self.destination), self.number, _COLUMNS)
        return _measure_table(table, f"{self.destination}/proposals/{chunk_name(self.number)}", wanted)


Piece = Records | JsonPiece | RowGroup | Chunk


@dataclass(frozen=True)
class Source:
    """Results that can be measured: their pieces, what the pieces' weights count, and their size in bytes."""

    name: str
    pieces: list[Any]
    unit: str
    size: int = 0
    note: str = ""


def open_results(results: Results | str | Path | Sequence[Record], truth: Annotations) -> Source:
    """A COCO results file, a Parquet file of proposals, a destination of `propose-bulk` (folder or URL), or what is in
    memory. Raises DataError where it is none of these."""
    if isinstance(results, Results):
        return Source(results.source, [Records(results)], "file")
    if not isinstance(results, str | Path):
        return Source("results", [Records(read_results(results, truth))], "file")
    path = str(results)
    if "://" in path or os.path.isdir(path):
        return _open_bulk(path)
    if path.endswith(".parquet"):
        return _open_parquet(path)
    pieces = json_pieces(path)
    if pieces is not None:
        assert_same_images(path, truth)
    if pieces is None:  # small, or an error that reading the whole file will name
        return Source(path, [Records(read_results(path, truth))], "file")
    return Source(path, pieces, "B", os.path.getsize(path))


def json_pieces(path: str) -> list[JsonPiece] | None:
    """The pieces of a results file; None for a file that is smaller or that is no list of objects."""
    try:
        with open(path, "rb") as file:
            total = file.seek(0, os.SEEK_END)
            if total <= PIECE:
                return None
            file.seek(0)
            head = file.read(_WINDOW)
            begin = len(head) - len(head.lstrip())
            key = _FIRST_KEY.match(head, begin)
            if not key:
                return None
            gap = re.compile(rb"\}\s*,\s*(?=\{\s*" + re.escape(key[1]) + rb"\s*:)")
            tail_at = total - _WINDOW
            file.seek(max(tail_at, 0))
            tail = file.read().rstrip()
            if not tail.endswith(b"]"):
                raise DataError(f"{path}: not valid JSON (the list has no end); was it written completely?")
            end = max(tail_at, 0) + len(tail) - 1
            cuts = [begin + 1]
            while (wanted := cuts[-1] + PIECE) < end and (cut := _next_gap(file, gap, wanted, end)):
                cuts.append(cut)
    except OSError:
        return None
    return [JsonPiece(path, first, last, last == end) for first, last in zip(cuts, [*cuts[1:], end], strict=True)]


def _next_gap(file: Any, gap: "re.Pattern[bytes]", place: int, end: int) -> int | None:
    """Where the first record after a place seems to begin."""
    file.seek(place)
    window = b""
    while place + len(window) < end:
        window += file.read(_WINDOW)
        if found := gap.search(window):
            return place + found.end() if place + found.end() < end else None
        place, window = place + len(window) - len(window[-_MARGIN:]), window[-_MARGIN:]
    return None


def _open_parquet(path: str) -> Source:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet", "reading Parquet") from error
    try:
        file = parquet.ParquetFile(path)
    except (OSError, ArrowException) as error:
        raise _damaged(path, error) from error
    missing = [column for column in _COLUMNS if column not in file.schema_arrow.names]
    if missing:
        raise DataError(f"{path}: has no column {', '.join(missing)}: not proposals as sharpmask writes them")
    rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    pieces = [RowGroup(path, group, count) for group, count in enumerate(rows)]
    return Source(path, pieces, "row", os.path.getsize(path))


def _open_bulk(destination: str) -> Source:
    try:
        from sharpmask.bulk.plan import read_plan
        from sharpmask.bulk.results import done_chunks
        from sharpmask.bulk.storage import Place
    except ImportError as error:
        raise MissingExtraError("pyarrow", "bulk", "reading the results of propose-bulk") from error
    plan = read_plan(Place(destination))
    if plan is None:
        raise DataError(f"{destination}: neither a results file nor a destination of propose-bulk")
    done = sorted(done_chunks(plan))
    images = sum(plan.size(chunk) for chunk in done)
    note = f"{destination} is not complete: {images} of {plan.images} images are done" if images < plan.images else ""
    pieces = [Chunk(destination, chunk, plan.size(chunk)) for chunk in done]
    # About 300 bytes a mask; the size only decides whether other processes are worth their start.
    return Source(destination, pieces, "image", images * TOP * 300, note)


def _damaged(path: str, error: BaseException) -> DataError:
    return DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})")


def _measure(grouped: Grouped, name: str, wanted: Wanted) -> Outcome:
    masks, boxes = grouped.masks == grouped.count, grouped.boxes == grouped.count and wanted.own_boxes
    there = {"segm": masks, "bbox": masks or boxes}
    results = Results(name, grouped.by_image, grouped.count, masks, boxes)
    iou_types = tuple(iou_type for iou_type in wanted.iou_types if there[iou_type])
    parts: dict[ImageId, Part] = {}
    for image_id, records in grouped.by_image.items():
        if wanted.truth.objects.get(image_id) and iou_types:
            kinds = {"boxes": "bbox" in iou_types, "masks": "segm" in iou_types}
            found = results.detections(image_id, wanted.truth, limit=TOP, **kinds)
            parts[image_id] = match_image(wanted.truth, image_id, found, len(records), iou_types)
        else:
            parts[image_id] = without_objects(len(records))
    return Outcome(grouped.count, grouped.masks, grouped.boxes, parts)


def _measure_table(table: "pa.Table", name: str, wanted: Wanted) -> Outcome:
    parts: dict[ImageId, Part] = {}
    names: dict[ImageId, str] = {}
    for rows in _by_image(table):
        file_name = rows.column("file_name")[0].as_py()
        image_id = image_of(file_name, wanted.truth, name)
        if image_id in parts:
            raise two_images(names[image_id], file_name, name, wanted)
        names[image_id] = file_name
        if wanted.truth.objects.get(image_id):
            found = _detections(rows, image_id, name, wanted)
            parts[image_id] = match_image(wanted.truth, image_id, found, len(rows), wanted.iou_types)
        else:
            parts[image_id] = without_objects(len(rows))
    return Outcome(len(table), len(table), len(table), parts, names)


def two_images(first: str, second: str, name: str, wanted: Wanted) -> DataError:
    """That two images of the results are the same one of the annotations."""
    return DataError(
        f"{name}: {first} and {second} are both taken for one image of {wanted.truth.source}; its file_name needs the "
        "folder"
    )


def image_of(file_name: str, truth: Annotations, name: str) -> ImageId:
    """The annotated image that a row's file name means: by the whole name, else by what follows its last `/`."""
    for key in (file_name, re.split(r"[/\\]", file_name)[-1]):
        if key in truth.file_names:
            return truth.file_names[key]
    raise DataError(
        f"{name}: holds proposals of {file_name}, which is not in {truth.source}; use the annotations of these images"
    )


def _by_image(table: "pa.Table") -> Iterator["pa.Table"]:
    """The rows of each image; they stand together."""
    ids = table.column("image_id").to_numpy()
    begins = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 1)).tolist()
    for begin, end in zip(begins, [*begins[1:], len(ids)], strict=True):
        yield table.slice(begin, end - begin)


def _detections(rows: "pa.Table", image_id: ImageId, name: str, wanted: Wanted) -> Detections:
    scores = rows.column("score").to_numpy().astype(np.float64)
    if not np.isfinite(scores).all():
        raise DataError(f"{name}: a result of image {image_id} has the score {scores[~np.isfinite(scores)][0]}")
    order = np.argsort(-scores, kind="stable")[:TOP]
    size = [rows.column("height")[0].as_py(), rows.column("width")[0].as_py()]
    known = wanted.truth.sizes[image_id]
    if known is not None and tuple(size) != known:
        raise DataError(
            f"{name}: the masks of image {image_id} are {size[0]}x{size[1]} (height x width) but the image is "
            f"{known[0]}x{known[1]}"
        )
    best = rows.take(order)
    boxes = rles = shapes = None
    if "bbox" in wanted.iou_types:
        columns = [best.column(column).to_numpy() for column in ("x", "y", "box_width", "box_height")]
        boxes = np.stack(columns, axis=1).astype(np.float64)
    if "segm" in wanted.iou_types:
        rles = [{"size": size, "counts": text} for text in best.column("counts").to_pylist()]
        shapes = mask_shapes(rles)
        if shapes.broken is not None:
            raise damaged_rle(name, image_id, scores[order][shapes.broken])
    return Detections(boxes, rles, scores[order], np.zeros(len(order), np.int64), shapes)
