"""Which boxes a detector is trained on, and as what.

A box is of the class of the object that it overlaps with an IoU of at least .5, otherwise background. That is a safe
conclusion only where every object is annotated. In an image that is not exhaustive:

- a box that overlaps no annotated object is ignored: it may well hold one that nobody annotated;
- a box that overlaps an annotated object, but not enough, is no good box of that object; what else it may hold is not
  known. It counts as background against the classes that are annotated in the image, and says nothing of the others:
  these are left out of its softmax (`known`);
- a box on an object of a class that is not learnt is background: what is there is known.

Where the classes that an image has are known to be annotated completely in it, a box that overlaps no annotated object
is not ignored, but counts as background against these classes, too.

Shape letters: N boxes, G objects, K classes; labels count from 1, 0 is the background, -1 is ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sharpmask.data.coco import CocoDataset
from sharpmask.detection.classes import DetectorClass, is_object
from sharpmask.detection.roi import box_areas, box_iou, intersections

FOREGROUND = 0.5
# Smaller overlaps with an annotated object say nothing in an image that is not exhaustive.
TOUCH = 0.1
# A box with so much of its area in a crowd is ignored.
CROWD = 0.5


@dataclass(frozen=True)
class ImageTruth:
    """What is annotated in an image.

    Attributes:
        boxes: (G, 4) float32 xyxy, within the image.
        labels: (G,) int64, 1 … K, and 0 for objects of classes that are not learnt.
        crowds: (C, 4) boxes of crowds.
        exhaustive: every object is annotated.
        complete: or else every object of the classes that are annotated.
        known: (K + 1,) bool, classes whose objects are known in the image: all, or the background and those annotated.
    """

    boxes: torch.Tensor
    labels: torch.Tensor
    crowds: torch.Tensor
    exhaustive: bool
    complete: bool
    known: torch.Tensor


@dataclass(frozen=True)
class Assigned:
    """What N boxes are to a detector.

    Attributes:
        labels: (N,) int64.
        ious: (N,) with the object that a box is of, or comes nearest to.
        targets: (N, 4) xyxy, that object's box; of no meaning for background.
        known: (N, K + 1) bool, classes that take part in the softmax where a box counts as background.
    """

    labels: torch.Tensor
    ious: torch.Tensor
    targets: torch.Tensor
    known: torch.Tensor

    def take(self, places: torch.Tensor) -> "Assigned":
        """Those at these places."""
        return Assigned(self.labels[places], self.ious[places], self.targets[places], self.known[places])


def image_truths(
    dataset: CocoDataset, classes: Sequence[DetectorClass], *, complete_classes: bool = False
) -> dict[int, ImageTruth]:
    """Image id -> what is annotated in it; `complete_classes`: all of a class where any of it is."""
    labels = {entry.id: place for place, entry in enumerate(classes, 1)}
    return {image_id: _truth(dataset, image_id, labels, complete_classes) for image_id in dataset.image_by_id}


def _truth(dataset: CocoDataset, image_id: int, labels: Mapping[int, int], complete: bool) -> ImageTruth:
    record = dataset.image_by_id[image_id]
    objects = [a for a in dataset.annotations_of[image_id] if is_object(a, dataset)]
    crowds = [a for a in dataset.annotations_of[image_id] if a.iscrowd]
    own = [labels.get(a.category_id, 0) for a in objects]
    known = torch.full((len(labels) + 1,), record.exhaustive)
    known[[0, *own]] = True
    size = (record.height, record.width)
    return ImageTruth(
        boxes=xyxy([a.bbox for a in objects], size),
        labels=torch.tensor(own, dtype=torch.int64),
        crowds=xyxy([a.bbox for a in crowds], size),
        exhaustive=record.exhaustive,
        complete=complete and bool(known[1:].any()),
        known=known,
    )


def xyxy(boxes_xywh: Sequence[Sequence[float]] | np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """xywh boxes as xyxy (N, 4) float32, cut at the borders of an image of `size` (H, W)."""
    boxes = torch.as_tensor(np.asarray(boxes_xywh, np.float32).reshape(-1, 4).copy())
    boxes[:, 2:] += boxes[:, :2]
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([size[1], size[0], size[1], size[0]]))


def assign(boxes: torch.Tensor, truth: ImageTruth, *, background_from: float = 0.0) -> Assigned:
    """What boxes (N, 4) are to a detector.

    Args:
        background_from: boxes that overlap every object less than this are ignored; Fast R-CNN takes .1, so that the
            background is near objects.
    """
    count = len(boxes)
    overlaps = box_iou(boxes, truth.boxes)  # (N, G)
    learnt = truth.labels > 0
    ious, nearest = _best(overlaps * learnt)
    any_ious = _best(overlaps)[0]
    foreground = ious >= FOREGROUND
    labels = torch.zeros(count, dtype=torch.int64)
    targets = torch.zeros(count, 4)
    if len(truth.boxes):
        labels = torch.where(foreground, truth.labels[nearest], labels)
        targets = torch.where(foreground[:, None], truth.boxes[nearest], targets)
    known = torch.ones(count, len(truth.known), dtype=torch.bool)
    ignored = any_ious < background_from
    if len(truth.crowds):
        share = intersections(boxes, truth.crowds) / box_areas(boxes).clamp(min=1e-6)[:, None]
        ignored |= share.amax(dim=1) > CROWD
    if not truth.exhaustive:
        if not truth.complete:
            ignored |= any_ious < TOUCH
        on_other = (overlaps * ~learnt).amax(dim=1) >= FOREGROUND if len(truth.boxes) else foreground
        known[~on_other | foreground] = truth.known
    labels = torch.where(ignored & ~foreground, torch.full_like(labels, -1), labels)
    return Assigned(labels, ious, targets, known)


def _best(overlaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of each row of (N, G) and its place; zeros where there is no object."""
    if overlaps.shape[1] == 0:
        empty = torch.zeros(len(overlaps))
        return empty, empty.long()
    best = overlaps.max(dim=1)
    return best.values, best.indices


def sample(assigned: Assigned, count: int, share: float, rng: np.random.Generator) -> torch.Tensor:
    """Places of at most `count` boxes to train on: up to `share` of them objects, the rest background, drawn at random.

    Where there are fewer objects, more background is taken, but never more than `count` in all; and an image without
    enough background gives fewer.
    """
    objects = np.flatnonzero((assigned.labels > 0).numpy())
    background = np.flatnonzero((assigned.labels == 0).numpy())
    objects = rng.permutation(objects)[: max(1, int(count * share))]
    background = rng.permutation(background)[: count - len(objects)]
    return torch.from_numpy(np.concatenate([objects, background]))
