"""What is wrong with an annotation file and its images, before hours of training are lost on it.

`check` decodes every image and every mask once. `assert_trainable` is the quick look that training takes before its
first step.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from pycocotools import mask as mask_api
from tqdm import tqdm

from sharpmask.data.coco import (
    Annotation,
    CocoDataset,
    ImageRecord,
    encode_mask,
    is_polygon,
    read_coco,
    segmentation_fault,
)
from sharpmask.data.examples import is_usable, requirements
from sharpmask.data.geometry import CanonicalGeometry
from sharpmask.data.negatives import NegativeSource
from sharpmask.data.photos import header_size_matches, read_photo
from sharpmask.errors import DataError

T = TypeVar("T")

# kind -> heading of the report, most serious first
ERRORS = {
    "no-images": "no images",
    "no-annotations": "no annotations",
    "no-usable": "no annotation can be a mask example",
    "record": "records that are not what COCO prescribes",
    "duplicate-image-id": "image ids that occur twice",
    "duplicate-annotation-id": "annotation ids that occur twice",
    "unknown-image": "annotations of an image that is not listed",
    "unknown-category": "annotations of a category that is not listed",
    "missing-image": "missing image files",
    "damaged-image": "damaged or truncated image files",
    "image-size": "images of another size than their record says",
    "segmentation": "segmentations that cannot be decoded",
    "degenerate-polygon": "degenerate polygons (fewer than three corners, or no area)",
    "outside": "polygons outside their image",
    "empty-mask": "empty masks",
    "bad-box": "boxes without extent",
}
WARNINGS = {
    "no-exhaustive": "no exhaustively annotated image: none may serve for negatives, only masks can be trained",
    "box-differs": "boxes that do not fit their mask",
    "area-differs": "areas that do not fit their mask",
    "same-file": "image files that are listed twice",
    "same-object": "annotations that occur twice (same image, category and box)",
}
EXAMPLES = 5
# Corners this far outside an image, in pixels, are rounding and not a mistake.
OUTSIDE_TOLERANCE = 2.0


@dataclass
class CheckReport:
    """Counts and up to five examples of every kind of fault; kinds are the keys of ERRORS and WARNINGS."""

    images: int = 0
    annotations: int = 0
    usable: int = 0
    """annotations that can be mask examples"""
    exhaustive: int = 0
    """images that may serve for negatives"""
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, example: str) -> None:
        """Count one fault."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        examples = self.examples.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(example)

    @property
    def error_count(self) -> int:
        """Faults that make training impossible or wrong."""
        return sum(count for kind, count in self.counts.items() if kind in ERRORS)

    @property
    def warning_count(self) -> int:
        """Things worth a look that training copes with."""
        return sum(count for kind, count in self.counts.items() if kind in WARNINGS)

    def __str__(self) -> str:
        lines = [
            f"{self.images} images ({self.exhaustive} for negatives), {self.annotations} annotations "
            f"({self.usable} usable for masks)"
        ]
        for title, kinds in (("error", ERRORS), ("warning", WARNINGS)):
            for kind, heading in kinds.items():
                count = self.counts.get(kind, 0)
                if not count:
                    continue
                lines.append(f"{title}: {heading}: {count}")
                lines.extend(f"    {example}" for example in self.examples[kind])
                if count > len(self.examples[kind]):
                    lines.append(f"    … and {count - len(self.examples[kind])} more")
        lines.append(f"{self.error_count} errors, {self.warning_count} warnings")
        return "\n".join(lines)


def check(
    annotations: str | Path,
    image_dir: str | Path,
    *,
    geometry: CanonicalGeometry | None = None,
    progress: bool = False,
    threads: int | None = None,
) -> CheckReport:
    """Read every record, image and mask of a COCO instances file and report what is wrong.

    `geometry` decides what counts as usable; `threads` decode images (default: one a processor). Raises DataError only
    if the file itself is not a COCO instances file or the image folder does not exist.
    """
    geometry = geometry or CanonicalGeometry()
    image_dir = _existing_folder(image_dir)
    report = CheckReport()
    dataset = read_coco(annotations, on_fault=lambda message: report.add("record", message))
    report.images, report.annotations = len(dataset.images), len(dataset.annotations)
    report.exhaustive = sum(record.exhaustive for record in dataset.images)
    report.usable = sum(is_usable(annotation, dataset, geometry) for annotation in dataset.annotations)
    for kind, message in _check_references(dataset, geometry):
        report.add(kind, message)

    def check_one(record: ImageRecord) -> list[tuple[str, str]]:
        faults = list(_check_photo(record, image_dir))
        if dataset.image_by_id[record.id] is record:
            for annotation in dataset.annotations_of[record.id]:
                faults.extend(_check_annotation(annotation, record))
        return faults

    pool = ThreadPoolExecutor(threads or os.cpu_count() or 1)
    try:
        results = pool.map(check_one, dataset.images)
        for faults in tqdm(
            results, total=len(dataset.images), desc="checking", unit="image", disable=None if progress else True
        ):
            for kind, message in faults:
                report.add(kind, message)
    finally:
        pool.shutdown(cancel_futures=True)
    return report


def assert_trainable(
    dataset: CocoDataset, image_dir: str | Path, *, negatives: bool = True, geometry: CanonicalGeometry | None = None
) -> None:
    """Raise DataError, naming the first fault and how many there are like it, if training would fail or be wrong.

    Looks at every annotation that may become an example and at the header of every image it or a negative comes from,
    but decodes no image: a file cut off in the middle is found by `check` only. `negatives`: score examples are wanted
    too.
    """
    geometry = geometry or CanonicalGeometry()
    image_dir = _existing_folder(image_dir)
    if not dataset.images:
        raise DataError(f"{dataset.path}: lists no images")
    if not dataset.annotations:
        raise DataError(f"{dataset.path}: holds no annotations; there is nothing to train on")
    usable = [annotation for annotation in dataset.annotations if is_usable(annotation, dataset, geometry)]
    if not usable:
        raise DataError(
            f"{dataset.path}: none of the {len(dataset.annotations)} annotations can be a mask example "
            f"({requirements(geometry)})"
        )
    faults = []
    for annotation in usable:
        record = dataset.image_by_id[annotation.image_id]
        fault = segmentation_fault(annotation, record.height, record.width)
        if fault:
            faults.append(fault)
    wanted = dict.fromkeys(annotation.image_id for annotation in usable)
    if negatives:
        wanted.update(dict.fromkeys(NegativeSource(dataset, geometry).image_ids))
    _refuse(dataset, image_dir, [*_duplicates(dataset), *faults, *_header_faults(dataset, image_dir, wanted)])
    if negatives:
        NegativeSource(dataset, geometry).draw(np.random.default_rng(0))


def assert_photos(dataset: CocoDataset, image_dir: str | Path) -> None:
    """Raise DataError, naming the first fault and how many there are like it, if the photos are not those listed.

    Looks at the header of every image, and at no mask: for what is learnt from boxes.
    """
    image_dir = _existing_folder(image_dir)
    _refuse(dataset, image_dir, [*_duplicates(dataset), *_header_faults(dataset, image_dir, dataset.image_by_id)])


def _duplicates(dataset: CocoDataset) -> Iterator[str]:
    for number, times in _repeated(record.id for record in dataset.images):
        yield f"image id {number} occurs {times} times"


def _header_faults(dataset: CocoDataset, image_dir: Path, image_ids: Iterable[int]) -> Iterator[str]:
    for image_id in image_ids:
        record = dataset.image_by_id[image_id]
        try:
            if not header_size_matches(record, image_dir):
                size = f"{record.width}x{record.height}"
                yield f"{image_dir / record.file_name}: is not of the size of its record, {size}"
        except DataError as error:
            yield str(error)


def _refuse(dataset: CocoDataset, image_dir: Path, faults: list[str]) -> None:
    if faults:
        more = f" (and {len(faults) - 1} faults more)" if len(faults) > 1 else ""
        raise DataError(
            f"{dataset.path} cannot be trained on: {faults[0]}{more}; list them with  sharpmask check {dataset.path} "
            f"--images {image_dir}"
        )


def _existing_folder(image_dir: str | Path) -> Path:
    image_dir = Path(image_dir)
    if not image_dir.is_dir():
        raise DataError(f"{image_dir}: is no folder; give the folder that holds the images")
    return image_dir


def _check_references(dataset: CocoDataset, geometry: CanonicalGeometry) -> Iterator[tuple[str, str]]:
    """Faults that show without looking at pixels: duplicates, dangling references, emptiness."""
    if not dataset.images:
        yield "no-images", f"{dataset.path} lists no images"
    if not dataset.annotations:
        yield "no-annotations", f"{dataset.path} holds no annotations"
    elif not any(is_usable(annotation, dataset, geometry) for annotation in dataset.annotations):
        yield "no-usable", f"all {len(dataset.annotations)} are crowds, too small, or without segmentation or image"
    if dataset.images and not any(record.exhaustive for record in dataset.images):
        yield "no-exhaustive", "'exhaustive' is false for every image"
    for message in _duplicates(dataset):
        yield "duplicate-image-id", message
    for number, times in _repeated(annotation.id for annotation in dataset.annotations):
        yield "duplicate-annotation-id", f"annotation id {number} occurs {times} times"
    for name, times in _repeated(record.file_name for record in dataset.images):
        yield "same-file", f"{name} is listed {times} times"
    objects = ((a.image_id, a.category_id, a.bbox) for a in dataset.annotations if not a.iscrowd and a.area)
    for (image_id, category_id, bbox), times in _repeated(objects):
        yield "same-object", f"image {image_id}, category {category_id}, box {bbox} occurs {times} times"
    for annotation in dataset.annotations:
        if annotation.image_id not in dataset.image_by_id:
            yield "unknown-image", f"annotation {annotation.id} points to image {annotation.image_id}"
        if annotation.category_id not in dataset.categories:
            yield "unknown-category", f"annotation {annotation.id} points to category {annotation.category_id}"


def _repeated(items: Iterable[T]) -> list[tuple[T, int]]:
    counts: dict[T, int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    return [(item, count) for item, count in counts.items() if count > 1]


def _check_photo(record: ImageRecord, image_dir: Path) -> Iterator[tuple[str, str]]:
    path = image_dir / record.file_name
    if not path.is_file():
        yield "missing-image", f"{path} (image {record.id})"
        return
    try:
        if not header_size_matches(record, image_dir):
            yield "image-size", f"{path}: its record says {record.width}x{record.height} (image {record.id})"
            return
        read_photo(record, image_dir)
    except DataError as error:
        yield "damaged-image", str(error)


def _check_annotation(annotation: Annotation, record: ImageRecord) -> Iterator[tuple[str, str]]:
    name = f"annotation {annotation.id} of image {record.id}"
    x, y, width, height = annotation.bbox
    if width <= 0 or height <= 0:
        yield "bad-box", f"{name}: box {annotation.bbox}"
    if isinstance(annotation.segmentation, list):
        yield from _check_polygons(annotation.segmentation, record, name)
    fault = segmentation_fault(annotation, record.height, record.width)
    if fault:
        yield "segmentation", f"{fault} (image {record.id})"
        return
    rle = encode_mask(annotation, record.height, record.width)
    area = int(mask_api.area(rle))
    if area == 0:
        yield "empty-mask", name
        return
    mask_x, mask_y, mask_width, mask_height = mask_api.toBbox(rle).tolist()
    offsets = (x - mask_x, y - mask_y, x + width - mask_x - mask_width, y + height - mask_y - mask_height)
    # the mask is cut at the image's border and rounded to pixels, the box need not be
    allowed = max(3.0, 0.1 * max(mask_width, mask_height))
    if width > 0 and height > 0 and max(map(abs, offsets)) > allowed:
        mask_box = (mask_x, mask_y, mask_width, mask_height)
        yield "box-differs", f"{name}: box {annotation.bbox}, box of its mask {mask_box} (xywh)"
    if abs(annotation.area - area) > 0.5 * max(area, annotation.area) + 10:
        yield "area-differs", f"{name}: area {annotation.area:g}, its mask has {area} pixels"


def _check_polygons(polygons: list[np.ndarray], record: ImageRecord, name: str) -> Iterator[tuple[str, str]]:
    bound = np.array([record.width, record.height])
    for number, polygon in enumerate(polygons):
        if not is_polygon(polygon):
            yield "degenerate-polygon", f"{name}: polygon {number} has {polygon.size} numbers, or some not finite"
            continue
        corners = polygon.reshape(-1, 2)
        x, y = (corners - corners.mean(axis=0)).T
        if abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) < 1e-6:
            yield "degenerate-polygon", f"{name}: polygon {number} has no area"
        beyond = float(np.maximum(-corners, corners - bound).max())
        if beyond > OUTSIDE_TOLERANCE:
            yield (
                "outside",
                f"{name}: polygon {number} reaches {beyond:.1f} pixels beyond {record.width}x{record.height}",
            )
