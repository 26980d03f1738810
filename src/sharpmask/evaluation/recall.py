"""Average recall of proposals, class-agnostic: AR@N, AR by object size and AUC, with bootstrap intervals over images.

Letters: I images, G objects of an image, D its proposals (at most 1,000), T the ten IoU thresholds .50, .55, … .95.

The figures are those of pycocotools' COCOeval with `useCats=0` and `maxDets` 1, 10, 100, 1000, found in one pass. Its
matching is greedy from the best score down, so what the first N proposals find does not depend on the later ones: it is
enough to know the place in the ranking of the proposal that finds each object (its *rank*). Every AR@N, the AUC and the
bootstrap follow from the ranks. Two consequences of its rules keep this short. A proposal turns to an object that is
ignored (a crowd, or outside of the size range) only where no counted object is left for it, so ignored objects never
change the recall and are left out. And the recall does not ask what the unmatched proposals are.

AR: COCO's definition, the mean of the recall over the T thresholds (Hosang et al., "What makes for effective detection
proposals?"). AUC: see `AUC_FORMULA`; SharpMask paper, table 1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sharpmask.errors import ConfigError
from sharpmask.evaluation.bootstrap import Estimate, estimates, replicates, resample_counts
from sharpmask.evaluation.inputs import Annotations, ImageId, Record, Results, read_annotations, read_results
from sharpmask.evaluation.masks import box_ious, mask_ious

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # exactly pycocotools' floats
LIMITS = (1, 10, 100, 1000)
TOP = LIMITS[-1]
# COCO's size ranges in square pixels of the annotation's area, both ends included.
AREAS: dict[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
IOU_TYPES = ("bbox", "segm")
MEAN_AR = "mean AR@10/100/1000"
METRICS = (*(f"AR@{limit}" for limit in LIMITS), "AUC", MEAN_AR)
# IoU type -> size range -> ranks (T, G) of the objects of one image.
Ranks = dict[str, dict[str, np.ndarray]]
AUC_FORMULA = "AUC = area under AR@N against log10(N) from N = 1 to 1000 (trapezoids between all whole N), divided by 3"


def auc_weights() -> np.ndarray:
    """Weights (1000,) with which AUC = sum of weight[N - 1] * AR@N: the trapezoid rule on log10(N), divided by 3.

    They add up to 1, so that a constant AR is its own AUC.
    """
    steps = np.diff(np.log10(np.arange(1, TOP + 1)))
    return (np.append(steps, 0.0) + np.insert(steps, 0, 0.0)) / 2 / 3


def rank_credits() -> np.ndarray:
    """What an object found by the proposal of rank r (0: best, 1000: not found) adds to each of METRICS, (1001, 6)."""
    ranks = np.arange(TOP + 1)
    credits = np.zeros((TOP + 1, len(METRICS)))
    for column, limit in enumerate(LIMITS):
        credits[:, column] = ranks < limit
    tail = np.cumsum(auc_weights()[::-1])[::-1]  # rank r counts for every N > r
    credits[:TOP, METRICS.index("AUC")] = tail
    credits[:, METRICS.index(MEAN_AR)] = credits[:, 1 : len(LIMITS)].mean(axis=1)
    return credits


def match_ranks(ious: np.ndarray) -> np.ndarray:
    """The rank of the proposal that finds each object at each threshold, (T, G) int; `TOP` where none does.

    `ious` (D, G) has the proposals from the best score down, D <= TOP, and only objects that count. As in pycocotools a
    proposal takes the free object of largest IoU (the last one of equals) if that is at least the threshold.
    """
    ranks = np.full((len(THRESHOLDS), ious.shape[1]), TOP)
    rows, columns = np.nonzero(ious >= THRESHOLDS[0])
    values = ious[rows, columns]
    order = np.lexsort((-columns, -values, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    for threshold, found in zip(THRESHOLDS, ranks, strict=True):
        keep = values >= threshold
        matched = -1  # the pairs of one proposal stand together, so remembering the last one is enough
        taken: set[int] = set()
        for row, column in zip(rows[keep].tolist(), columns[keep].tolist(), strict=True):
            if row != matched and column not in taken:
                taken.add(column)
                found[column] = matched = row
    return ranks


@dataclass(frozen=True)
class AreaRecall:
    """The recall of the objects of one size range."""

    credits: np.ndarray  # (I, 6) for each image and each of METRICS: the sum over its objects
    objects: np.ndarray  # (I,) the number of objects in each image
    curve: np.ndarray  # (1000,) AR@N for N = 1 … 1000; nan without objects
    recalls: np.ndarray  # (T, 4) recall at each threshold and each of LIMITS; nan without objects
    estimates: dict[str, Estimate]  # by the names of METRICS, as fractions


@dataclass(frozen=True)
class Recall:
    """The figures of one set of proposals on one set of annotations. Fractions, not percent."""

    name: str
    annotations: str
    areas: dict[str, dict[str, AreaRecall]]  # "bbox" | "segm" -> "all" | "small" | "medium" | "large"
    images: int
    objects: int
    crowds: int
    proposals: int
    empty_images: int  # images with objects but without a single proposal: all their objects count as missed
    resamples: int
    seed: int
    notes: list[str] = field(default_factory=list)

    @property
    def iou_types(self) -> tuple[str, ...]:
        return tuple(self.areas)

    def value(self, metric: str, iou_type: str = "segm", area: str = "all") -> float:
        """One figure, e.g. `value("AR@100", "bbox")`; nan where there is no object of that size."""
        return self.areas[iou_type][area].estimates[metric].value

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON types; missing figures are None."""
        return {
            "name": self.name,
            "annotations": self.annotations,
            "images": self.images,
            "objects": self.objects,
            "crowds_left_out": self.crowds,
            "proposals": self.proposals,
            "images_without_proposals": self.empty_images,
            "auc_definition": AUC_FORMULA,
            "interval": {"level": 0.95, "resamples": self.resamples, "over": "images", "seed": self.seed},
            "notes": list(self.notes),
            "figures": {
                iou_type: {area: _area_dict(recall) for area, recall in areas.items()}
                for iou_type, areas in self.areas.items()
            },
        }

    def text(self) -> str:
        """The table of these proposals alone; `tables.recall_table` sets several side by side."""
        from sharpmask.evaluation.tables import recall_table

        return recall_table([self])


def evaluate_recall(
    annotations: Annotations | Record | str | Path,
    results: Results | str | Path | Sequence[Record],
    *,
    name: str | None = None,
    iou_types: Sequence[str] = IOU_TYPES,
    seed: int = 0,
    resamples: int = 1000,
    progress: bool = True,
) -> Recall:
    """Measure COCO results against COCO annotations, class-agnostic, as pycocotools' COCOeval does with `useCats=0`.

    annotations: a file, the parsed JSON, or `read_annotations`' result (to measure several results on the same).
    results: a file, a list of records with image_id, score and bbox and/or segmentation, or `read_results`' result.
        Boxes that are missing are those of the masks; without masks only "bbox" is measured, and a note says so.
    iou_types: "bbox", "segm" or both.
    seed, resamples: of the bootstrap over images; the same seed draws the same images for every results file.
    progress: show a bar on the terminal.

    Unlike pycocotools: results of a category that the annotations do not have are counted rather than dropped, an
    annotation whose id is 0 counts as found when it is, and no object of a size gives nan instead of -1.
    Raises DataError naming the record at fault, ConfigError for an unknown IoU type.
    """
    unknown = [iou_type for iou_type in iou_types if iou_type not in IOU_TYPES]
    if unknown or not iou_types:
        raise ConfigError(f"no IoU type {', '.join(unknown) or 'given'}; there are: {', '.join(IOU_TYPES)}")
    truth = annotations if isinstance(annotations, Annotations) else read_annotations(annotations)
    found = results if isinstance(results, Results) else read_results(results, truth)
    label = name or (Path(results).stem if isinstance(results, str | Path) else "proposals")
    notes = []
    if truth.stray:
        notes.append(f"{truth.stray} annotations belong to images that are not listed; they are left out")
    wanted = [iou_type for iou_type in IOU_TYPES if iou_type in iou_types]
    if "segm" in wanted and not found.has_masks:
        if wanted == ["segm"]:
            raise ConfigError(f"{found.source}: has no masks (segmentation) to measure; use --iou-type bbox")
        wanted = ["bbox"]
        notes.append(f"{label} has no masks: boxes only")
    if "bbox" in wanted and not found.has_boxes:
        notes.append(f"{label} has no boxes: the masks' bounding boxes are used")

    bar = tqdm(truth.image_ids, desc=f"evaluate {label}", unit="image", disable=not progress, leave=False)
    ranks = (image_ranks(truth, found, image_id, wanted) for image_id in bar)
    empty = sum(bool(objects) and image_id not in found.by_image for image_id, objects in truth.objects.items())
    return recall_of_ranks(
        ranks,
        truth,
        name=label,
        iou_types=wanted,
        proposals=found.count,
        empty_images=empty,
        seed=seed,
        resamples=resamples,
        notes=notes,
    )


def image_ranks(truth: Annotations, found: Results, image_id: ImageId, iou_types: Sequence[str]) -> Ranks:
    """The ranks (T, G) of the proposals that find one image's objects, by IoU type and size range.

    Size ranges without objects are left out. Raises DataError naming the record that cannot be read.
    """
    ranks: Ranks = {iou_type: {} for iou_type in iou_types}
    if not truth.objects.get(image_id):
        return ranks
    want = {"boxes": "bbox" in iou_types, "masks": "segm" in iou_types}
    objects = truth.truth(image_id, **want)
    proposals = found.detections(image_id, truth, limit=TOP, **want)
    for iou_type in iou_types:
        if iou_type == "bbox":
            assert proposals.boxes_xywh is not None and objects.boxes_xywh is not None
            ious = box_ious(proposals.boxes_xywh, objects.boxes_xywh)
        else:
            ious = mask_ious(proposals.rles or [], objects.rles or [])
        for area, (low, high) in AREAS.items():
            inside = (objects.areas >= low) & (objects.areas <= high)
            if inside.any():
                ranks[iou_type][area] = match_ranks(ious[:, inside])
    return ranks


def recall_of_ranks(
    ranks: Iterable[Ranks],
    truth: Annotations,
    *,
    name: str,
    iou_types: Sequence[str],
    proposals: int,
    empty_images: int,
    seed: int = 0,
    resamples: int = 1000,
    notes: Sequence[str] = (),
) -> Recall:
    """The figures that follow from the ranks of each of `truth`'s images, in their order."""
    tallies = {iou_type: {area: _Tally(len(truth.image_ids)) for area in AREAS} for iou_type in iou_types}
    credits = rank_credits()
    for index, of_image in enumerate(ranks):
        for iou_type, by_area in of_image.items():
            for area, found in by_area.items():
                tallies[iou_type][area].add(index, found, credits)
    counts = resample_counts(len(truth.image_ids), resamples, seed)
    return Recall(
        name=name,
        annotations=truth.source,
        areas={
            iou_type: {area: tally.finish(counts) for area, tally in by_area.items()}
            for iou_type, by_area in tallies.items()
        },
        images=len(truth.image_ids),
        objects=sum(map(len, truth.objects.values())),
        crowds=truth.crowds,
        proposals=proposals,
        empty_images=empty_images,
        resamples=resamples,
        seed=seed,
        notes=list(notes),
    )


def compare_recalls(first: Recall, other: Recall, *, iou_type: str, area: str = "all") -> dict[str, Estimate]:
    """`other` minus `first` for each of METRICS, with a paired interval: both are drawn on the same resampled images.

    Raises ConfigError where they were not measured on the same images and objects, or not with this IoU type.
    """
    for recall in (first, other):
        if iou_type not in recall.areas:
            raise ConfigError(f"{recall.name} was not measured with '{iou_type}'")
    one, two = first.areas[iou_type][area], other.areas[iou_type][area]
    if not np.array_equal(one.objects, two.objects) or (first.resamples, first.seed) != (other.resamples, other.seed):
        raise ConfigError(f"{first.name} and {other.name} were not measured on the same annotations with the same seed")
    counts = resample_counts(len(one.objects), first.resamples, first.seed)
    return estimates(
        METRICS,
        np.array([two.estimates[metric].value - one.estimates[metric].value for metric in METRICS]),
        replicates(two.credits, two.objects, counts) - replicates(one.credits, one.objects, counts),
    )


class _Tally:
    """Collects the ranks of one IoU type and size range."""

    def __init__(self, images: int) -> None:
        self.credits = np.zeros((images, len(METRICS)))
        self.objects = np.zeros(images, np.int64)
        self.histogram = np.zeros((len(THRESHOLDS), TOP + 1), np.int64)

    def add(self, index: int, ranks: np.ndarray, credits: np.ndarray) -> None:
        """Image number `index` with the ranks (T, G) of its objects."""
        self.credits[index] = credits[ranks].mean(axis=0).sum(axis=0)
        self.objects[index] = ranks.shape[1]
        for row, found in zip(self.histogram, ranks, strict=True):
            np.add.at(row, found, 1)

    def finish(self, counts: np.ndarray) -> AreaRecall:
        total = self.objects.sum()
        if total:
            recalls = np.cumsum(self.histogram[:, :TOP], axis=1) / total  # (T, 1000)
            values = self.credits.sum(axis=0) / total
        else:
            recalls = np.full((len(THRESHOLDS), TOP), np.nan)
            values = np.full(len(METRICS), np.nan)
        return AreaRecall(
            self.credits,
            self.objects,
            recalls.mean(axis=0),
            recalls[:, [limit - 1 for limit in LIMITS]],
            estimates(METRICS, values, replicates(self.credits, self.objects, counts)),
        )


def _area_dict(recall: AreaRecall) -> dict[str, Any]:
    half, seven = 0, 4  # rows of THRESHOLDS
    figures: dict[str, Any] = {metric: estimate.to_dict() for metric, estimate in recall.estimates.items()}
    for row, label in ((half, "IoU .50"), (seven, "IoU .70")):
        figures[f"recall at {label}"] = {
            f"@{limit}": None if np.isnan(value) else float(value)
            for limit, value in zip(LIMITS, recall.recalls[row], strict=True)
        }
    return {"objects": int(recall.objects.sum()), **figures}
