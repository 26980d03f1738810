"""Reading what is measured: COCO annotations and results by image, with errors that name the record at fault.

Masks are converted image by image when they are needed, so that the memory stays that of the loaded JSON.
"""

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from sharpmask.errors import DataError
from sharpmask.evaluation.masks import MaskShapes, Rle, first_broken, mask_boxes, mask_shapes, to_rle

ImageId = Hashable
Record = Mapping[str, Any]


def read_json(path: str | Path) -> Any:
    """The parsed file. Raises DataError where it is missing, unreadable or no JSON."""
    try:
        with open(path, "rb") as file:
            return json.load(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); was it written completely?") from error


@dataclass(frozen=True)
class Truth:
    """The G objects of one image, in pycocotools' order (by category, then as in the file)."""

    areas: np.ndarray  # (G,) square pixels, the annotations' `area`; where it is missing the mask's, or else the box's
    boxes_xywh: np.ndarray | None  # (G, 4) float64, None unless asked for
    rles: list[Rle] | None
    records: list[Record]  # the annotations themselves


@dataclass(frozen=True)
class Annotations:
    """COCO `instances` annotations by image; `source` is the name used in messages."""

    source: str
    image_ids: list[ImageId]
    sizes: dict[ImageId, tuple[int, int] | None]  # (H, W)
    file_names: dict[str, ImageId]
    category_rank: dict[Hashable, int]
    category_names: dict[Hashable, str]
    objects: dict[ImageId, list[Record]]  # without crowds
    crowds: dict[ImageId, list[Record]]
    partial: frozenset[ImageId]  # images of which `exhaustive` is false: not all of their objects are annotated
    stray: int  # annotations of images that are not listed; they are left out as in pycocotools

    def truth(self, image_id: ImageId, *, boxes: bool, masks: bool, crowds: bool = False) -> Truth:
        """The objects of one image, or its crowds. Raises DataError naming the annotation that cannot be read."""
        last = len(self.category_rank)
        records = sorted(
            (self.crowds if crowds else self.objects).get(image_id, []),
            key=lambda record: self.category_rank.get(record.get("category_id"), last),
        )
        size = self.sizes[image_id]
        areas = np.zeros(len(records))
        corners = np.zeros((len(records), 4)) if boxes else None
        rles: list[Rle] = []
        for index, record in enumerate(records):
            box, area = record.get("bbox") or None, record.get("area")
            if boxes and box is not None:
                box = _box(box, self._name(record))
            if masks or box is None or (area is None and record.get("segmentation") is not None):
                rle = self._rle(record, size)
                rles.append(rle)
                area = _mask_area(rle) if area is None else area
                box = mask_boxes([rle])[0] if box is None else box
            areas[index] = box[2] * box[3] if area is None else area
            if corners is not None:
                corners[index] = box
        return Truth(areas, corners, rles if masks else None, records)

    def _rle(self, record: Record, size: tuple[int, int] | None) -> Rle:
        try:
            if record.get("segmentation") is None:
                raise ValueError("it has no segmentation; measure boxes only with --iou-type bbox")
            rle = to_rle(record["segmentation"], *(size or (None, None)))
            if first_broken([rle]) is not None:
                raise ValueError("a damaged RLE: its runs do not fill the mask")
            return rle
        except ValueError as error:
            raise DataError(f"{self._name(record)}: {error}; `sharpmask check` lists all such records") from error

    def _name(self, record: Record) -> str:
        return f"{self.source}: annotation {record.get('id')} of image {record.get('image_id')}"


@dataclass(frozen=True)
class Detections:
    """The best proposals of one image, best first; D of them."""

    boxes_xywh: np.ndarray | None  # (D, 4) float64
    rles: list[Rle] | None
    scores: np.ndarray  # (D,) float64
    categories: np.ndarray  # (D,) int64, the place of the category among the annotations' ones
    shapes: MaskShapes | None = None  # of `rles`, where they have been measured


@dataclass(frozen=True)
class Results:
    """COCO results (a list of proposals or detections) by image."""

    source: str
    by_image: dict[ImageId, list[Record]]
    count: int
    has_masks: bool
    has_boxes: bool  # False: boxes are those of the masks

    def detections(
        self, image_id: ImageId, annotations: Annotations, *, limit: int, boxes: bool, masks: bool
    ) -> Detections:
        """The `limit` best results of one image. Raises DataError naming the image whose record cannot be read."""
        records = self.by_image.get(image_id, [])
        scores = np.array([record["score"] for record in records], np.float64)
        last = len(annotations.category_rank)
        ranks = np.array(
            [annotations.category_rank.get(record.get("category_id"), last) for record in records], np.int64
        )
        # Equal scores keep pycocotools' order: by category, then as in the file.
        order = np.lexsort((ranks, -scores))[:limit]
        chosen = [records[index] for index in order]
        rles = shapes = None
        if masks or (boxes and not self.has_boxes):
            rles, shapes = self._rles(image_id, chosen, annotations.sizes[image_id])
        corners = None
        if boxes and self.has_boxes:
            name = f"{self.source}: a result of image {image_id}"
            corners = np.array([_box(record["bbox"], name) for record in chosen], np.float64).reshape(-1, 4)
        elif boxes:
            corners = mask_boxes(rles or [])
        return Detections(corners, rles if masks else None, scores[order], ranks[order], shapes if masks else None)

    def _rles(
        self, image_id: ImageId, records: Sequence[Record], size: tuple[int, int] | None
    ) -> tuple[list[Rle], MaskShapes]:
        try:
            rles = [to_rle(record["segmentation"], *(size or (None, None))) for record in records]
        except ValueError as error:
            raise DataError(f"{self.source}: a result of image {image_id}: {error}") from error
        shapes = mask_shapes(rles)
        if shapes.broken is not None:
            raise damaged_rle(self.source, image_id, records[shapes.broken]["score"])
        return rles, shapes


def read_annotations(source: str | Path | Record) -> Annotations:
    """COCO `instances` annotations from a file or from the parsed JSON. Raises DataError naming what is wrong."""
    name = "annotations" if isinstance(source, Mapping) else str(source)
    content = source if isinstance(source, Mapping) else read_json(source)
    if not isinstance(content, Mapping) or not isinstance(content.get("images"), list):
        raise DataError(
            f"{name}: not COCO annotations: an object with the lists 'images' and 'annotations' is expected"
        )
    if not isinstance(content.get("annotations"), list):
        raise DataError(f"{name}: has no list 'annotations', so there is nothing to compare with")
    sizes: dict[ImageId, tuple[int, int] | None] = {}
    file_names: dict[str, ImageId] = {}
    partial: set[ImageId] = set()
    for image in content["images"]:
        image_id = _key(image, "id", f"{name}: an entry of 'images'")
        if image_id in sizes:
            raise DataError(f"{name}: image id {image_id} occurs twice; `sharpmask check` lists all such records")
        size = (image.get("height"), image.get("width"))
        sizes[image_id] = None if None in size else _size(size, f"{name}: image {image_id}")
        if image.get("exhaustive") not in (None, 0, 1):  # False and True are these, too
            raise DataError(
                f"{name}: image {image_id} has the exhaustive {image['exhaustive']!r}; true or false is needed"
            )
        if image.get("exhaustive") is not None and not image["exhaustive"]:
            partial.add(image_id)
        if image.get("file_name"):
            file_names[str(image["file_name"])] = image_id
    if not sizes:
        raise DataError(f"{name}: lists no images, so there is nothing to measure on")
    listed = content.get("categories") or []
    try:
        categories: list[Any] = [category.get("id") for category in listed if isinstance(category, Mapping)]
        category_rank = {key: rank for rank, key in enumerate(sorted(set(categories)))}
    except TypeError as error:
        raise DataError(f"{name}: category ids must be all numbers or all strings ({error})") from error
    category_names = {
        category.get("id"): str(category.get("name", category.get("id")))
        for category in listed
        if isinstance(category, Mapping)
    }
    objects: dict[ImageId, list[Record]] = {}
    crowds: dict[ImageId, list[Record]] = {}
    stray = 0
    for record in content["annotations"]:
        image_id = _key(record, "image_id", f"{name}: an entry of 'annotations'")
        if image_id not in sizes:
            stray += 1
        else:
            if not isinstance(record.get("category_id"), Hashable):
                raise DataError(f"{name}: annotation {record.get('id')} has the category_id {record['category_id']!r}")
            if record.get("iscrowd") not in (None, 0, 1):  # "no" is true to Python
                raise DataError(
                    f"{name}: annotation {record.get('id')} of image {image_id} has the iscrowd {record['iscrowd']!r}; "
                    "0 or 1 is needed"
                )
            area = record.get("area")
            if area is not None and not _is_number(area):
                raise DataError(f"{name}: annotation {record.get('id')} of image {image_id} has the area {area!r}")
            (crowds if record.get("iscrowd") else objects).setdefault(image_id, []).append(record)
    return Annotations(
        name, list(sizes), sizes, file_names, category_rank, category_names, objects, crowds, frozenset(partial), stray
    )


def assert_same_images(results: str | Path, annotations: Annotations) -> None:
    """Refuse COCO results whose image ids are of another numbering: beside a results file `propose` and `detect` leave
    `images.json` where the ids are their own, and in it the file names tell whether they are those of the annotations.

    Raises:
        DataError: an id is of a file of another name there.
    """
    own = Path(results).with_name("images.json")
    if not own.is_file():
        return
    names = {image_id: name for name, image_id in annotations.file_names.items()}
    content = read_json(own)
    listed = content.get("images") if isinstance(content, Mapping) else None
    for image in listed if isinstance(listed, list) else []:
        if not isinstance(image, Mapping) or not isinstance(image.get("id"), Hashable):
            continue
        name, wanted = image.get("file_name"), names.get(image.get("id"))
        if isinstance(name, str) and wanted is not None and PurePath(name).stem != PurePath(wanted).stem:
            raise DataError(
                f"{results}: its image ids are not those of {annotations.source}: {image['id']} is '{name}' here (see "
                f"{own}) and '{wanted}' there; make the results again with --annotations {annotations.source}"
            )


def read_results(source: str | Path | Sequence[Record], annotations: Annotations) -> Results:
    """COCO results from a file or a list. Raises DataError: no list, an image not in `annotations`, no score, …"""
    name = str(source) if isinstance(source, str | Path) else "results"
    if isinstance(source, str | Path):
        assert_same_images(source, annotations)
    content = read_json(source) if isinstance(source, str | Path) else source
    if isinstance(content, Mapping):
        raise DataError(
            f"{name}: COCO results are a list of objects with image_id, score, bbox and segmentation, but this file "
            "holds one object (an annotation file?)"
        )
    if not isinstance(content, Sequence):
        raise DataError(f"{name}: COCO results are a list, not {type(content).__name__}")
    grouped = group_results(content, annotations, name)
    try:
        has_masks, has_boxes = grouped.kinds()
    except ValueError as error:
        raise DataError(f"{name}: {error}") from error
    return Results(name, grouped.by_image, grouped.count, has_masks, has_boxes)


@dataclass
class Grouped:
    """Results by image, all of a file's or a part of them."""

    by_image: dict[ImageId, list[Record]]
    count: int = 0
    masks: int = 0  # results with a segmentation
    boxes: int = 0  # results with a bbox

    def kinds(self) -> tuple[bool, bool]:
        """Whether all have masks, and whether all have boxes. Raises ValueError where that makes no whole."""
        if 0 < self.masks < self.count and self.boxes < self.count:
            raise ValueError(
                f"{self.masks} of {self.count} results have a segmentation and {self.boxes} a bbox; "
                "give all of them the same"
            )
        return self.masks == self.count, self.count == 0 or self.boxes == self.count


def group_results(content: Sequence[object], annotations: Annotations, name: str, before: int = 0) -> Grouped:
    """Check records and sort them by image. Raises DataError naming the first that cannot be measured by its number.

    before: records of the file before these.
    """
    grouped = Grouped({}, len(content))
    for number, record in enumerate(content, before + 1):
        image_id = _key(record, "image_id", f"{name}: result number {number}")
        assert isinstance(record, Mapping)
        if image_id not in annotations.sizes:
            raise DataError(
                f"{name}: result number {number} is of image {image_id!r}, which is not in {annotations.source}; "
                "use the annotations the proposals were made for"
            )
        if not isinstance(record.get("category_id"), Hashable):
            raise DataError(f"{name}: result number {number} has no usable 'category_id' ({record['category_id']!r})")
        if not _is_number(record.get("score")):
            raise DataError(f"{name}: result number {number} (image {image_id}) has the score {record.get('score')!r}")
        masks, boxes = bool(record.get("segmentation")), bool(record.get("bbox"))
        if not masks and not boxes:
            raise DataError(f"{name}: result number {number} (image {image_id}) has neither bbox nor segmentation")
        grouped.masks += masks
        grouped.boxes += boxes
        grouped.by_image.setdefault(image_id, []).append(record)
    return grouped


def damaged_rle(source: str, image_id: ImageId, score: float) -> DataError:
    return DataError(
        f"{source}: a result of image {image_id} with score {score:g} has a damaged RLE: its runs do not fill the "
        "mask; write the file again"
    )


def _key(record: object, field: str, name: str) -> ImageId:
    if not isinstance(record, Mapping):
        raise DataError(f"{name} is not an object but {type(record).__name__}")
    key = record.get(field)
    if key is None or not isinstance(key, Hashable):
        raise DataError(f"{name} has no usable '{field}' ({key!r})")
    return key


def _size(size: tuple[Any, Any], name: str) -> tuple[int, int]:
    if not all(_is_number(side) and side > 0 and side == int(side) for side in size):
        raise DataError(f"{name} has the height {size[0]!r} and the width {size[1]!r}; whole pixels are needed")
    return int(size[0]), int(size[1])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _box(box: object, name: str) -> list[float]:
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(_is_number, box)) or box[2] < 0 or box[3] < 0:
        raise DataError(f"{name} has the bbox {box!r}; it must be [x, y, width, height] in pixels")
    return list(box)


def _mask_area(rle: Rle) -> float:
    # One at a time: pycocotools' area of 256 and more masks overflows with newer numpy versions.
    return float(mask_utils.area(rle))
