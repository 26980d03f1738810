"""Reading COCO `instances` JSON: images, categories, annotations, and their masks.

A small reader of its own instead of `pycocotools.coco.COCO`: it prints nothing, keeps duplicates and dangling
references so that `sharpmask.data.check` can report them, and says which record is at fault. Only the mask routines of
pycocotools are used.

Coordinates are COCO's: continuous pixels of the image, x to the right, y down, pixel (column c, row r) covering [c,
c+1) x [r, r+1).
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from sharpmask.errors import DataError

# What a record that is not of COCO's form makes of the parsing.
_FAULTS = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
# Polygons as one float64 array (2 * corners,) each, or a COCO RLE dict, or None where the record has nothing usable.
Segmentation = list[np.ndarray] | dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One entry of `images`. `exhaustive` is false where only some of the objects are annotated (default: all are)."""

    id: int
    file_name: str
    height: int
    width: int
    exhaustive: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """One entry of `annotations`. `bbox` is xywh in image pixels; `area` in square pixels; both are taken from the mask
    where missing. `pseudo`: nobody drew it, a model found it (`sharpmask mine labels`).
    """

    id: int
    image_id: int
    category_id: int
    segmentation: Segmentation = field(repr=False)
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: bool
    pseudo: bool = False


@dataclass(frozen=True)
class CocoDataset:
    """The contents of one annotation file, in file order; duplicates of ids are kept.

    `path` is the file it came from (for messages), `categories` maps category id to name; ids may have gaps.
    """

    path: Path
    images: tuple[ImageRecord, ...]
    annotations: tuple[Annotation, ...]
    categories: dict[int, str]

    @cached_property
    def image_by_id(self) -> dict[int, ImageRecord]:
        """Image id -> record; of duplicate ids the first counts."""
        return {record.id: record for record in reversed(self.images)}

    @cached_property
    def annotations_of(self) -> dict[int, tuple[Annotation, ...]]:
        """Image id -> its annotations, an entry for every image of the file."""
        groups: dict[int, list[Annotation]] = {record.id: [] for record in self.images}
        for annotation in self.annotations:
            groups.setdefault(annotation.image_id, []).append(annotation)
        return {image_id: tuple(group) for image_id, group in groups.items()}


def read_coco(path: str | Path, *, on_fault: Callable[[str], None] | None = None) -> CocoDataset:
    """Read a COCO `instances` file.

    A single record that lacks what it must have (an id, a file name, a size, an image id) raises DataError, or, where
    `on_fault` is given, is skipped after `on_fault` was called with the message. Missing `bbox`, `area` and `iscrowd`
    are filled in; a segmentation that cannot be decoded is kept (as None or as it is) and raises only in `decode_mask`.

    Raises DataError for a file that cannot be read, is no JSON, or is no `instances` file.
    """
    path = Path(path)
    content = _load(path)

    def skip(message: str) -> None:
        if on_fault is None:
            raise DataError(f"{path}: {message}")
        on_fault(message)

    images: list[ImageRecord] = []
    for position, entry in enumerate(content["images"]):
        try:
            images.append(_parse_image(entry))
        except _FAULTS as error:
            skip(f"images[{position}] {_reason(error)}")
    categories: dict[int, str] = {}
    for position, entry in enumerate(content["categories"]):
        try:
            identifier = _integer(entry["id"], "id")
            categories.setdefault(identifier, str(entry.get("name", identifier)))
        except _FAULTS as error:
            skip(f"categories[{position}] {_reason(error)}")
    sizes = {record.id: (record.height, record.width) for record in reversed(images)}
    annotations: list[Annotation] = []
    for position, entry in enumerate(content["annotations"]):
        try:
            annotations.append(_parse_annotation(entry, sizes))
        except _FAULTS as error:
            skip(f"annotations[{position}] {_reason(error)}")
    return CocoDataset(path=path, images=tuple(images), annotations=tuple(annotations), categories=categories)


def encode_mask(annotation: Annotation, height: int, width: int) -> dict[str, Any]:
    """The annotation's mask as one compressed COCO RLE of an image of `height` x `width` pixels.

    Raises DataError, naming the annotation, if it has no usable segmentation or its RLE is of another size.
    """
    return _to_rle(annotation.segmentation, height, width, f"annotation {annotation.id}")


def decode_mask(annotation: Annotation, height: int, width: int) -> np.ndarray:
    """The annotation's mask in its whole image: uint8 (H, W), 1 on the object. Raises as `encode_mask` does."""
    return mask_api.decode(encode_mask(annotation, height, width))


def _to_rle(segmentation: Segmentation, height: int, width: int, name: str) -> dict[str, Any]:
    if isinstance(segmentation, dict):
        size = segmentation.get("size")
        if not isinstance(size, list | tuple) or list(size) != [height, width]:
            raise DataError(f"{name}: the RLE is of size {size}, its image is {[height, width]} (height, width)")
        counts = segmentation.get("counts")
        if isinstance(counts, str | bytes):
            compressed = counts.encode() if isinstance(counts, str) else counts
            runs = _decompress(compressed)
        else:
            runs = _as_runs(counts)
        # pycocotools trusts what it is given: wrong counts make it read and write outside its arrays, so they end here
        if runs is None:
            raise DataError(f"{name}: the counts of the RLE are damaged")
        if (runs < 0).any() or int(runs.sum()) != height * width:
            raise DataError(
                f"{name}: the counts of the RLE sum to {int(runs.sum())}, its image has {height * width} pixels"
            )
        if isinstance(counts, str | bytes):
            return {"size": [height, width], "counts": compressed}
        return mask_api.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
    polygons = [polygon for polygon in segmentation or [] if is_polygon(polygon)]
    if not polygons:
        raise DataError(f"{name}: no segmentation that makes a mask")
    # coordinates far outside would overflow the rasteriser's integers; polygons that reach that far are nonsense anyway
    bound = np.array([width, height], dtype=np.float64)
    clipped = [np.clip(polygon.reshape(-1, 2), -bound - 64, 2 * bound + 64).ravel() for polygon in polygons]
    return mask_api.merge(mask_api.frPyObjects(clipped, height, width))


def is_polygon(polygon: np.ndarray) -> bool:
    """Whether an array is x, y pairs of at least three corners, all finite."""
    return polygon.size >= 6 and polygon.size % 2 == 0 and bool(np.isfinite(polygon).all())


def segmentation_fault(annotation: Annotation, height: int, width: int) -> str | None:
    """What keeps the annotation's segmentation from being decoded in an image of this size, or None. Rasterises
    nothing.
    """
    if isinstance(annotation.segmentation, dict):
        try:
            encode_mask(annotation, height, width)
        except DataError as error:
            return str(error)
    elif not any(is_polygon(polygon) for polygon in annotation.segmentation or []):
        return f"annotation {annotation.id}: no segmentation that makes a mask"
    return None


def _as_runs(counts: Any) -> np.ndarray | None:
    """Uncompressed counts as int64 (runs,), or None if they are no list of whole numbers of 32 bits."""
    if not isinstance(counts, list) or not all(isinstance(run, int) and 0 <= abs(run) < 2**32 for run in counts):
        return None
    return np.array(counts, dtype=np.int64)


def _decompress(text: bytes) -> np.ndarray | None:
    """The run lengths int64 (runs,) in a compressed COCO RLE string, or None where it is damaged.

    A number is written in groups of five bits, lowest first, one character (48 + bits) each; bit 32 says that more
    follow, bit 16 of the last is the sign. From the fourth run on the difference to the run before the previous one is
    written.
    """
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = np.flatnonzero((codes & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    digits = last - first + 1
    if digits.max() > 7:
        return None
    place = np.arange(codes.size) - np.repeat(first, digits)
    runs = np.add.reduceat((codes & 31) << (5 * place), first)
    runs -= np.where(codes[last] & 16, np.int64(1) << (5 * digits), 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def _load(path: Path) -> dict[str, list[Any]]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no valid JSON ({error})") from error
    if isinstance(content, list):
        raise DataError(
            f"{path}: holds a list (COCO results?); expected a COCO instances file with images, annotations, categories"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path}: is no COCO instances file: it has no list '{key}'")
    return content


def _parse_image(entry: dict[str, Any]) -> ImageRecord:
    record = ImageRecord(
        id=_integer(entry["id"], "id"),
        file_name=entry["file_name"],
        height=_integer(entry["height"], "height"),
        width=_integer(entry["width"], "width"),
        exhaustive=_flag(entry.get("exhaustive"), "exhaustive", missing=True),
    )
    if not isinstance(record.file_name, str) or not record.file_name:
        raise ValueError(f"has the file_name {record.file_name!r}")
    if record.height < 1 or record.width < 1:
        raise ValueError(f"has the size {record.width}x{record.height}")
    return record


def _parse_annotation(entry: dict[str, Any], sizes: dict[int, tuple[int, int]]) -> Annotation:
    identifier = _integer(entry["id"], "id")
    image_id = _integer(entry["image_id"], "image_id")
    category_id = _integer(entry["category_id"], "category_id")
    segmentation = _parse_segmentation(entry.get("segmentation"))
    bbox, area = entry.get("bbox") or None, entry.get("area") or None  # some tools write [] and 0 for "not computed"
    if bbox is None or area is None:
        mask_bbox, mask_area = _measure(segmentation, sizes.get(image_id))
        bbox = mask_bbox if bbox is None else bbox
        area = mask_area if area is None else area
    if len(bbox) != 4:
        raise ValueError(f"has a bbox of {len(bbox)} numbers, 4 are needed (x, y, width, height)")
    x, y, width, height = (_finite(value, "bbox") for value in bbox)
    return Annotation(
        id=identifier,
        image_id=image_id,
        category_id=category_id,
        segmentation=segmentation,
        bbox=(x, y, width, height),
        area=_finite(area, "area"),
        iscrowd=_flag(entry.get("iscrowd"), "iscrowd", missing=False),
        pseudo=_flag(entry.get("pseudo"), "pseudo", missing=False),
    )


def _parse_segmentation(value: Any) -> Segmentation:
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        return None
    if value and not isinstance(value[0], list):
        value = [value]  # a single polygon without the outer list, as some tools write it
    polygons = []
    for polygon in value:
        try:
            polygons.append(np.asarray(polygon, dtype=np.float64).ravel())
        except (TypeError, ValueError, OverflowError):
            polygons.append(np.empty(0))  # kept so that the check sees that something was here
    return polygons


def _measure(
    segmentation: Segmentation, size: tuple[int, int] | None
) -> tuple[tuple[float, float, float, float], float]:
    """Box (xywh) and area of the mask; zeros where there is none, which keeps the annotation out of the examples."""
    if size is None:
        return (0.0, 0.0, 0.0, 0.0), 0.0
    try:
        rle = _to_rle(segmentation, *size, name="")
    except DataError:
        return (0.0, 0.0, 0.0, 0.0), 0.0
    x, y, width, height = mask_api.toBbox(rle).tolist()
    return (x, y, width, height), float(mask_api.area(rle))


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        raise ValueError(f"has the {name} {value!r}, a whole number is needed")
    return int(value)


def _finite(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"has {value!r} in {name}, a number is needed")
    return float(value)


def _flag(value: Any, name: str, *, missing: bool) -> bool:
    """A truth value; not what Python takes for one, to which "false" is true."""
    if value is None:
        return missing
    if value not in (0, 1):  # True and False are these, too
        raise ValueError(f"has {value!r} in {name}, true or false (or 1 or 0) is needed")
    return bool(value)


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"has no {error.args[0]}"
    if isinstance(error, TypeError | AttributeError):
        return "is not of the form COCO prescribes"
    return str(error)
