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

from sharpmask.errors import ConfigError, DataError
from sharpmask.evaluation.bootstrap import Estimate, estimates, replicates, resample_counts
from sharpmask.evaluation.collecting import Collected, collect
from sharpmask.evaluation.inputs import Annotations, Grouped, ImageId, Record, Results, read_annotations
from sharpmask.evaluation.matching import AREAS, LIMITS, THRESHOLDS, TOP, Ranks, join_parts, match_image, match_ranks
from sharpmask.evaluation.pieces import Source, Wanted, open_results

__all__ = ["AREAS", "LIMITS", "THRESHOLDS", "TOP", "match_ranks"]  # with what is defined here
IOU_TYPES = ("bbox", "segm")
MEAN_AR = "mean AR@10/100/1000"
NO_RESULTS = Results("", {}, 0, has_masks=True, has_boxes=True)
METRICS = (*(f"AR@{limit}" for limit in LIMITS), "AUC", MEAN_AR)
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


def evaluate_recall(
    annotations: Annotations | Record | str | Path,
    results: Results | str | Path | Sequence[Record],
    *,
    name: str | None = None,
    iou_types: Sequence[str] = IOU_TYPES,
    seed: int = 0,
    resamples: int = 1000,
    progress: bool = True,
    workers: int | None = 1,
) -> Recall:
    """Measure COCO results against COCO annotations, class-agnostic, as pycocotools' COCOeval does with `useCats=0`.

    annotations: a file, the parsed JSON, or `read_annotations`' result (to measure several results on the same).
    results: a file, a list of records with image_id, score and bbox and/or segmentation, or `read_results`' result;
        or a Parquet file of proposals, or a destination of `propose-bulk`, whose images are known by file name.
        Boxes that are missing are those of the masks; without masks only "bbox" is measured, and a note says so.
    iou_types: "bbox", "segm" or both.
    seed, resamples: of the bootstrap over images; the same seed draws the same images for every results file.
    progress: show a bar on the terminal.
    workers: processes; None: as many as cores, if the results are large. A script that starts more than one needs the
        usual `if __name__ == "__main__":`.

    Unlike pycocotools: results of a category that the annotations do not have are counted rather than dropped, an
    annotation whose id is 0 counts as found when it is, and no object of a size gives nan instead of -1.
    Raises DataError naming the record at fault, ConfigError for an unknown IoU type or no resamples.
    """
    unknown = [iou_type for iou_type in iou_types if iou_type not in IOU_TYPES]
    if unknown or not iou_types:
        raise ConfigError(f"no IoU type {', '.join(unknown) or 'given'}; there are: {', '.join(IOU_TYPES)}")
    if resamples < 1:  # before hours are spent on the rest
        raise ConfigError(f"the number of bootstrap resamples must be at least 1, not {resamples}")
    truth = annotations if isinstance(annotations, Annotations) else read_annotations(annotations)
    found = open_results(results, truth)
    label = name or (Path(results).stem if isinstance(results, str | Path) else "proposals")
    notes = []
    if truth.stray:
        notes.append(f"{truth.stray} annotations belong to images that are not listed; they are left out")
    wanted = [iou_type for iou_type in IOU_TYPES if iou_type in iou_types]
    collected = collect(found, Wanted(truth, tuple(wanted)), label=label, workers=workers, progress=progress)
    has_masks, has_boxes = _kinds(found, collected)
    if "bbox" in wanted and has_masks and not has_boxes and collected.boxes:
        # Some had boxes: all are measured by those of their masks.
        limited = Wanted(truth, tuple(wanted), own_boxes=False)
        collected = collect(found, limited, label=label, workers=workers, progress=progress)
    if found.note:
        notes.append(found.note)
    if "segm" in wanted and not has_masks:
        if wanted == ["segm"]:
            raise ConfigError(f"{found.name}: has no masks (segmentation) to measure; use --iou-type bbox")
        wanted = ["bbox"]
        notes.append(f"{label} has no masks: boxes only")
    if "bbox" in wanted and not has_boxes:
        notes.append(f"{label} has no boxes: the masks' bounding boxes are used")

    ranks = (_ranks(truth, collected, image_id, wanted) for image_id in truth.image_ids)
    empty = sum(bool(objects) and image_id not in collected.parts for image_id, objects in truth.objects.items())
    return recall_of_ranks(
        ranks,
        truth,
        name=label,
        iou_types=wanted,
        proposals=collected.count,
        empty_images=empty,
        seed=seed,
        resamples=resamples,
        notes=notes,
    )


def _kinds(found: Source, collected: Collected) -> tuple[bool, bool]:
    try:
        return Grouped({}, collected.count, collected.masks, collected.boxes).kinds()
    except ValueError as error:
        raise DataError(f"{found.name}: {error}") from error


def _ranks(truth: Annotations, collected: Collected, image_id: ImageId, iou_types: Sequence[str]) -> Ranks:
    """The ranks of one image's objects; those of an image without proposals say that none is found."""
    if not truth.objects.get(image_id):
        return {}
    parts = collected.parts.get(image_id)
    if parts:
        ranks = join_parts(parts)
        return {iou_type: ranks[iou_type] for iou_type in iou_types}
    kinds = {"boxes": "bbox" in iou_types, "masks": "segm" in iou_types}
    nothing = NO_RESULTS.detections(image_id, truth, limit=TOP, **kinds)
    return match_image(truth, image_id, nothing, 0, iou_types).ranks


def image_ranks(truth: Annotations, found: Results, image_id: ImageId, iou_types: Sequence[str]) -> Ranks:
    """The ranks (T, G) of the proposals that find one image's objects, by IoU type and size range.

    Size ranges without objects are left out. Raises DataError naming the record that cannot be read.
    """
    if not truth.objects.get(image_id):
        return {iou_type: {} for iou_type in iou_types}
    kinds = {"boxes": "bbox" in iou_types, "masks": "segm" in iou_types}
    proposals = found.detections(image_id, truth, limit=TOP, **kinds)
    return match_image(truth, image_id, proposals, len(proposals.scores), iou_types).ranks


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
        crowds=sum(map(len, truth.crowds.values())),
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
