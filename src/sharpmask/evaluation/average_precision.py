"""Precision and recall of ranked detections: average precision, and the share that is right above a score.

What was found is pycocotools' matching; here it is only put in order and counted, with a weight for each image, which
the bootstrap needs.

Shape letters: I images, T IoU thresholds, D detections of a class.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.cocoeval import COCOeval

_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class ClassMatches:
    """What COCOeval found of one class, all sizes, at most 100 detections an image; detections best first."""

    scores: np.ndarray  # (D,)
    images: np.ndarray  # (D,) places of their images
    hits: np.ndarray  # (T, D) whether it is the match of an object
    ignored: np.ndarray  # (T, D) matches of crowds
    objects: np.ndarray  # (I,) objects of each image


def class_matches(evaluated: COCOeval, place: int) -> ClassMatches:
    """What was found of the class at `place`: sizes "all", the largest number of detections."""
    params = evaluated.params
    images = len(params.imgIds)
    begin = place * len(params.areaRng) * images
    entries = evaluated.evalImgs[begin : begin + images]  # of the first range of sizes, all
    objects = np.zeros(images, np.int64)
    scores, at, hits, ignored = [np.zeros(0)], [np.zeros(0, np.int64)], [], []
    thresholds = len(params.iouThrs)
    for number, entry in enumerate(entries):
        if entry is None:
            continue
        objects[number] = np.count_nonzero(np.asarray(entry["gtIgnore"]) == 0)
        scores.append(np.asarray(entry["dtScores"], np.float64))
        at.append(np.full(len(entry["dtScores"]), number))
        hits.append(np.asarray(entry["dtMatches"]).reshape(thresholds, -1) > 0)
        ignored.append(np.asarray(entry["dtIgnore"], bool).reshape(thresholds, -1))
    joined = np.concatenate(scores)
    order = np.argsort(-joined, kind="mergesort")
    empty = np.zeros((thresholds, 0), bool)
    return ClassMatches(
        joined[order],
        np.concatenate(at)[order],
        np.concatenate([empty, *hits], axis=1)[:, order],
        np.concatenate([empty, *ignored], axis=1)[:, order],
        objects,
    )


def _curves(matches: ClassMatches, weights: np.ndarray | float) -> tuple[np.ndarray, np.ndarray] | None:
    """Recall and precision (T, D) along the ranking, each image counted as often as its weight; None without object."""
    per_image = np.broadcast_to(np.asarray(weights, np.float64), matches.objects.shape)
    total = float((matches.objects * per_image).sum())
    if total == 0:
        return None
    weight = per_image[matches.images] * ~matches.ignored
    right = np.cumsum(matches.hits * weight, axis=1)
    wrong = np.cumsum(~matches.hits * weight, axis=1)
    return right / total, right / np.maximum(right + wrong, np.spacing(1))


def _falling(precision: np.ndarray) -> np.ndarray:
    """At each rank the best precision at it or after it."""
    return np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]


def coco_ap(matches: ClassMatches, weights: np.ndarray | float) -> np.ndarray | None:
    """COCO's AP (T,) of a class: precision at 101 recalls."""
    curves = _curves(matches, weights)
    if curves is None:
        return None
    recall, precision = curves[0], np.pad(_falling(curves[1]), ((0, 0), (0, 1)))
    return np.array(
        [p[np.searchsorted(r, _RECALLS, side="left")].mean() for r, p in zip(recall, precision, strict=True)]
    )


def voc_ap(matches: ClassMatches, weights: np.ndarray | float) -> float:
    """PASCAL VOC's AP at IoU .5 of a class, as from 2010 on: the area under the falling precision-recall curve."""
    curves = _curves(matches, weights)
    if curves is None:
        return float("nan")
    recall, precision = curves[0][0], _falling(curves[1])[0]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def mean_of_known(values: Sequence[float]) -> float:
    """The mean of those that are not nan; nan where all are."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


@dataclass(frozen=True)
class ShownCounts:
    """Of each image (I,): its objects, how many detections are shown, and how many of these are right at IoU .5.

    A second detection of an object is wrong, one of a crowd is not counted.
    """

    objects: np.ndarray
    shown: np.ndarray
    right: np.ndarray


def count_shown(matches: Sequence[ClassMatches], min_score: float) -> ShownCounts:
    """Counts over classes of the detections with at least this score."""
    images = len(matches[0].objects)
    shown, right = np.zeros(images), np.zeros(images)
    for own in matches:
        counted = ~own.ignored[0] & (own.scores >= min_score)
        shown += np.bincount(own.images[counted], minlength=images)
        right += np.bincount(own.images[counted & own.hits[0]], minlength=images)
    return ShownCounts(np.sum([own.objects for own in matches], axis=0), shown, right)


def shares_of_shown(counts: ShownCounts, weights: np.ndarray | float = 1.0) -> tuple[float, float, float, float]:
    """Of the detections, the share that is right; of the objects, that found; of the images with detections, that where
    more than half of them are right; of the images with objects, that where any is found. nan of nothing.
    """
    objects, shown, right = (value * weights for value in (counts.objects, counts.shown, counts.right))
    images = np.broadcast_to(np.asarray(weights, np.float64), counts.shown.shape)
    named, mostly = counts.shown > 0, 2 * counts.right > counts.shown
    pairs = (
        (right.sum(), shown.sum()),
        (right.sum(), objects.sum()),
        (images[named & mostly].sum(), images[named].sum()),
        (images[(counts.right > 0)].sum(), images[counts.objects > 0].sum()),
    )
    precision, recall, mostly_right, any_found = (float(a / b) if b else float("nan") for a, b in pairs)
    return precision, recall, mostly_right, any_found
