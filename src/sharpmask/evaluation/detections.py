"""Average precision of detections: COCO's twelve figures, PASCAL VOC's AP50, each class, and bootstrap intervals.

The matching and the twelve figures are those of pycocotools' COCOeval itself. What it found is then reordered once more
for VOC's AP and for the resampled images.

Shape letters: I images, K classes, T IoU thresholds, D detections of a class.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sharpmask.errors import ConfigError, DataError
from sharpmask.evaluation.average_precision import (
    ClassMatches,
    class_matches,
    coco_ap,
    count_shown,
    mean_of_known,
    shares_of_shown,
    voc_ap,
)
from sharpmask.evaluation.bootstrap import Estimate, estimates, resample_counts
from sharpmask.evaluation.inputs import Annotations, Record, read_annotations, read_results

IOU_TYPES = ("bbox", "segm")
# COCOeval's `stats`, in their order. AP is over IoU .50:.95; AR@N over the best N detections an image and class.
FIGURES = (
    "AP", "AP50", "AP75", "AP small", "AP medium", "AP large",
    "AR@1", "AR@10", "AR@100", "AR small", "AR medium", "AR large",
)  # fmt: skip
VOC = "VOC AP50"
ALL = "all classes"
# Figures that get an interval.
INTERVALS = ("AP", "AP50", "AP75", VOC)


class Shown(NamedTuple):
    """What somebody sees who looks at the detections that are shown.

    Attributes:
        precision: share of the detections that are right.
        recall: share of the objects that are found.
        images_right: of the images with detections, those where more than half of them are right.
        images_found: of the images with objects, those where any is found.
    """

    precision: Estimate
    recall: Estimate
    images_right: Estimate
    images_found: Estimate


@dataclass(frozen=True)
class DetectionScores:
    """How good the detections of one results file are; figures are fractions, nan where there is nothing to measure.

    Attributes:
        name: of the column in tables.
        source: name of the annotations.
        images, objects, detections: how many were measured; crowds do not count.
        partial: images that were left out, since not all of their objects are annotated.
        classes: names of the classes that were measured.
        figures: "bbox" or "segm" -> the names of FIGURES and VOC -> figure.
        by_class: "bbox" or "segm" -> class -> AP with its interval.
        intervals: "bbox" or "segm" -> the names of INTERVALS -> figure with its interval.
        min_score: of `shown`; None: there is none.
        shown: "bbox" or "segm" -> class, and ALL for all together -> shares at IoU .5 of the detections with at least
            `min_score`.
        drawn: "bbox" or "segm" -> (resamples, INTERVALS and classes), the figures, and the AP of each class, of the
            resampled images, for paired differences.
        resamples, seed: of the bootstrap.
    """

    name: str
    source: str
    images: int
    partial: int
    objects: int
    detections: int
    classes: tuple[str, ...]
    figures: dict[str, dict[str, float]]
    by_class: dict[str, dict[str, Estimate]]
    intervals: dict[str, dict[str, Estimate]]
    min_score: float | None
    shown: dict[str, dict[str, Shown]]
    drawn: dict[str, np.ndarray] = field(repr=False)
    resamples: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """All figures in the types of JSON."""
        return {
            "name": self.name,
            "annotations": self.source,
            "images": self.images,
            "images_left_out": self.partial,
            "objects": self.objects,
            "detections": self.detections,
            "classes": list(self.classes),
            "figures": {kind: _finite(values) for kind, values in self.figures.items()},
            "by_class": _plain(self.by_class),
            "intervals": _plain(self.intervals),
            "min_score": self.min_score,
            "shown": {
                kind: {
                    label: {name: share.to_dict() for name, share in shown._asdict().items()}
                    for label, shown in values.items()
                }
                for kind, values in self.shown.items()
            },
        }


def evaluate_detections(
    annotations: str | Path | Mapping[str, Any],
    detections: str | Path | Sequence[Record],
    *,
    name: str | None = None,
    iou_types: Sequence[str] | None = None,
    classes: Sequence[str] = (),
    resamples: int = 200,
    seed: int = 0,
    min_score: float | None = None,
) -> DetectionScores:
    """Measure COCO results with classes on COCO annotations.

    Images with `"exhaustive": false` are left out: what is found there and not annotated may well be right.

    Args:
        annotations: an `instances` file, or its parsed JSON.
        detections: a COCO results file, or the list.
        name: of the column; by default the file's name.
        iou_types: "bbox", "segm" or both; None: all that the detections have.
        classes: names of those to measure; none: all of the annotations.
        resamples: of the bootstrap over images; 0: no intervals.
        seed: of the bootstrap.
        min_score: measure also `Shown` of the detections with at least this score.

    Raises:
        DataError: a file that cannot be measured, no image that is annotated exhaustively, or detections of a class
            that the annotations do not list.
        ConfigError: an unknown class name.
    """
    truth = read_annotations(annotations)
    results = read_results(detections, truth)
    image_ids = [image_id for image_id in truth.image_ids if image_id not in truth.partial]
    if not image_ids:
        raise DataError(f"{truth.source}: no image is annotated exhaustively, so that there is none to measure AP on")
    records = [record for image_id in image_ids for record in results.by_image.get(image_id, [])]
    for record in records:
        if record.get("category_id") not in truth.category_names:
            raise DataError(
                f"{results.source}: a result of image {record['image_id']} has the category {record.get('category_id')}"
                f", which {truth.source} does not list; proposals without a class are measured by  sharpmask evaluate"
            )
    chosen = _chosen(truth.category_names, classes, truth.source)
    kinds = [kind for kind in IOU_TYPES if kind in (iou_types or IOU_TYPES)]
    has = {"bbox": results.has_boxes or results.has_masks, "segm": results.has_masks}
    if iou_types is None:
        kinds = [kind for kind in kinds if has[kind]]
        if not results.count and not _has_masks(truth):
            kinds = ["bbox"]
    missing = [kind for kind in kinds if not has[kind]]
    if missing:
        raise DataError(f"{results.source} has no masks, so they cannot be measured; give --iou-type bbox")
    for image_id in image_ids:  # pycocotools does not say which record is at fault
        results.detections(image_id, truth, limit=len(records), boxes="bbox" in kinds, masks="segm" in kinds)
    reference = _reference(truth, image_ids, masks="segm" in kinds)
    chosen_records = [record for record in records if record["category_id"] in chosen]
    found: dict[str, Any] = {"figures": {}, "by_class": {}, "intervals": {}, "drawn": {}, "shown": {}}
    for kind in kinds:
        evaluated = _coco_eval(reference, chosen_records, kind, list(chosen))
        matches = [class_matches(evaluated, place) for place in range(len(chosen))]
        voc = mean_of_known([voc_ap(m, 1.0) for m in matches])
        found["figures"][kind] = {**dict(zip(FIGURES, map(_or_nan, evaluated.stats), strict=True)), VOC: voc}
        precision = evaluated.eval["precision"][:, :, :, 0, -1]  # (T, recalls, K)
        own = np.array([_or_nan(precision[:, :, place].mean()) for place in range(len(chosen))])
        counts = resample_counts(len(image_ids), resamples, seed) if resamples else np.zeros((0, 0), np.int32)
        drawn = np.array([_resampled(matches, weights) for weights in counts])
        drawn = drawn.reshape(-1, len(INTERVALS) + len(chosen))
        values = np.array([found["figures"][kind][figure] for figure in INTERVALS])
        found["intervals"][kind] = estimates(INTERVALS, values, drawn[:, : len(INTERVALS)])
        found["by_class"][kind] = estimates(list(chosen.values()), own, drawn[:, len(INTERVALS) :])
        found["drawn"][kind] = drawn
        if min_score is not None:
            parts = {ALL: matches, **{label: [own] for label, own in zip(chosen.values(), matches, strict=True)}}
            found["shown"][kind] = {label: _shown(part, min_score, counts) for label, part in parts.items()}
    return DetectionScores(
        name=name or (Path(detections).stem if isinstance(detections, str | Path) else results.source),
        source=truth.source,
        images=len(image_ids),
        partial=len(truth.partial),
        objects=sum(r.get("category_id") in chosen for i in image_ids for r in truth.objects.get(i, [])),
        detections=len(chosen_records),
        classes=tuple(chosen.values()),
        resamples=resamples,
        seed=seed,
        min_score=min_score,
        **found,
    )


def _chosen(names: Mapping[Any, str], wanted: Sequence[str], source: str) -> dict[Any, str]:
    """Category id -> name of the classes to measure, ids ascending."""
    unknown = [name for name in wanted if name not in names.values()]
    if unknown:
        raise ConfigError(f"{source} has no class '{unknown[0]}'; it has: {', '.join(names.values())}")
    return {key: names[key] for key in sorted(names) if not wanted or names[key] in wanted}


def _has_masks(truth: Annotations) -> bool:
    return all(record.get("segmentation") is not None for own in truth.objects.values() for record in own)


def _reference(truth: Annotations, image_ids: Sequence[Any], *, masks: bool) -> COCO:
    """The annotations, checked, as pycocotools has them: numbered from 1, since it takes the id 0 for "no match".

    pycocotools itself trusts what it reads: an RLE that does not fill its mask makes it run for ever.
    """
    coco = _empty({image_id: truth.sizes[image_id] for image_id in image_ids}, truth.category_names)
    for image_id in image_ids:
        for crowds in (False, True):
            own = truth.truth(image_id, boxes=True, masks=masks, crowds=crowds)
            assert own.boxes_xywh is not None
            for place, record in enumerate(own.records):
                coco.dataset["annotations"].append(
                    {
                        "id": len(coco.dataset["annotations"]) + 1,
                        "image_id": image_id,
                        "category_id": record.get("category_id"),
                        "iscrowd": int(crowds),
                        "area": float(own.areas[place]),
                        "bbox": own.boxes_xywh[place].tolist(),
                        **({"segmentation": own.rles[place]} if own.rles is not None else {}),
                    }
                )
    _quietly(coco.createIndex)
    return coco


def _empty(sizes: Mapping[Any, tuple[int, int] | None], categories: Mapping[Any, str]) -> COCO:
    """No annotations of images of these sizes (H, W), which pycocotools looks at without need where masks are RLEs."""
    coco = _quietly(COCO)
    coco.dataset = {
        "images": [
            dict(zip(("id", "height", "width"), (key, *(size or (0, 0))), strict=True)) for key, size in sizes.items()
        ],
        "categories": [{"id": key, "name": name} for key, name in categories.items()],
        "annotations": [],
    }
    return coco


def _coco_eval(reference: COCO, records: Sequence[Record], kind: str, categories: list[Any]) -> COCOeval:
    """COCOeval, evaluated, accumulated and summarised."""
    # With both fields in a record pycocotools would take the box's area for the mask's.
    field_name = {"bbox": "bbox", "segm": "segmentation"}[kind]
    if kind == "bbox" and not all(record.get("bbox") for record in records):
        field_name = "segmentation"  # boxes are those of the masks
    kept = [{key: record[key] for key in ("image_id", "category_id", "score", field_name)} for record in records]
    if kept:
        found = _quietly(reference.loadRes, kept)
    else:
        found = _empty(dict.fromkeys(reference.imgs), {})
        _quietly(found.createIndex)
    evaluated = COCOeval(reference, found, kind)
    evaluated.params.catIds = categories
    evaluated.params.imgIds = list(dict.fromkeys(image["id"] for image in reference.dataset["images"]))
    with np.errstate(invalid="ignore", divide="ignore"):
        _quietly(evaluated.evaluate)
        _quietly(evaluated.accumulate)
        _quietly(evaluated.summarize)
    return evaluated


def _quietly(call: Any, *arguments: Any) -> Any:
    """What `call` returns, without what it prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        return call(*arguments)


def _resampled(matches: Sequence[ClassMatches], weights: np.ndarray) -> list[float]:
    """The figures of INTERVALS, and the AP of each class, when each image counts as often as its weight (I,)."""
    aps = [coco_ap(m, weights) for m in matches]
    known = [ap for ap in aps if ap is not None]
    table = np.array(known).mean(axis=0) if known else np.full(10, np.nan)
    voc = mean_of_known([voc_ap(m, weights) for m in matches])
    own = [float("nan") if ap is None else float(ap.mean()) for ap in aps]
    return [float(table.mean()), float(table[0]), float(table[5]), voc, *own]


def _shown(matches: Sequence[ClassMatches], min_score: float, counts: np.ndarray) -> Shown:
    """The shares, with intervals where there are resamples (R, I)."""
    found = count_shown(matches, min_score)
    values = np.array(shares_of_shown(found))
    drawn = np.array([shares_of_shown(found, weights) for weights in counts]).reshape(-1, len(values))
    return Shown(**estimates(Shown._fields, values, drawn))


def _or_nan(value: float) -> float:
    """pycocotools writes -1 where there is nothing to measure."""
    return float("nan") if value < 0 else float(value)


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: None if np.isnan(value) else value for key, value in values.items()}


def _plain(values: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, dict[str, float | None]]]:
    return {kind: {name: found.to_dict() for name, found in own.items()} for kind, own in values.items()}
