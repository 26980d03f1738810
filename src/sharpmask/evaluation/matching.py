"""Which proposal finds which object of one image: IoUs of .5 and more, and the ranks that follow from them.

Letters: G objects of an image, D its proposals (at most 1,000), T the ten IoU thresholds .50, .55, … .95, P pairs.

Of an image's thousand proposals few reach an IoU of .5 with any of its few objects, and only these pairs matter. For
masks, areas and boxes rule most pairs out (exactly, see `masks.may_overlap`); pycocotools intersects the rest.

The results of an image may come in several parts (of a file that is read piece by piece). What a part says is kept so
that the parts' ranks can be found together: the scores, which order all proposals of the image, and the pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sharpmask.evaluation.inputs import Annotations, Detections, ImageId, Truth
from sharpmask.evaluation.masks import box_ious, mask_ious, mask_shapes, may_overlap

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
# IoU type -> size range -> ranks (T, G) of the objects of one image.
Ranks = dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Pairs:
    """The pairs of a proposal and an object with an IoU of at least .5, in any order: (P,) each."""

    proposals: np.ndarray  # places in the ranking, from 0
    objects: np.ndarray
    ious: np.ndarray

    def __post_init__(self) -> None:
        assert len(self.proposals) == len(self.objects) == len(self.ious)


def pairs_of(ious: np.ndarray) -> Pairs:
    """Of a full table (D, G)."""
    rows, columns = np.nonzero(ious >= THRESHOLDS[0])
    return Pairs(rows, columns, ious[rows, columns])


def find_pairs(objects: Truth, proposals: Detections, iou_type: str) -> Pairs:
    """The pairs of an image's proposals with its objects; by their boxes ("bbox") or by their masks ("segm")."""
    if iou_type == "bbox":
        assert proposals.boxes_xywh is not None and objects.boxes_xywh is not None
        return pairs_of(box_ious(proposals.boxes_xywh, objects.boxes_xywh))
    rles, wanted = proposals.rles or [], objects.rles or []
    shapes = proposals.shapes or mask_shapes(rles)
    rows = np.flatnonzero(may_overlap(shapes, mask_shapes(wanted)).any(axis=1))
    found = pairs_of(mask_ious([rles[row] for row in rows], wanted))
    return Pairs(rows[found.proposals], found.objects, found.ious)


def match_ranks(ious: np.ndarray) -> np.ndarray:
    """The rank of the proposal that finds each object at each threshold, (T, G) int; `TOP` where none does.

    `ious` (D, G) has the proposals from the best score down, D <= TOP, and only objects that count.
    """
    return match_pairs(pairs_of(ious), ious.shape[1])


def match_pairs(pairs: Pairs, objects: int) -> np.ndarray:
    """`match_ranks` of the pairs that matter. As in pycocotools a proposal takes the free object of largest IoU (the
    last one of equals) if that is at least the threshold."""
    ranks = np.full((len(THRESHOLDS), objects), TOP)
    order = np.lexsort((-pairs.objects, -pairs.ious, pairs.proposals))
    rows, columns, values = pairs.proposals[order], pairs.objects[order], pairs.ious[order]
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
class Part:
    """What one part of the results says about one image.

    Attributes:
        count: its results, the ones beyond the best 1,000 too.
        scores, categories: (D,) of the best ones, best first: float64 and the place of their category.
        areas: (G,) of the objects.
        pairs: by IoU type; "bbox" or "segm" is missing where the part has no such data. Empty without objects.
        ranks: what follows if there is no other part.
    """

    count: int
    scores: np.ndarray
    categories: np.ndarray
    areas: np.ndarray
    pairs: dict[str, Pairs]
    ranks: Ranks


def match_image(
    truth: Annotations, image_id: ImageId, proposals: Detections, count: int, iou_types: Sequence[str]
) -> Part:
    """Compare the best proposals of one image with its objects. Raises DataError naming the annotation at fault."""
    objects = truth.truth(image_id, boxes="bbox" in iou_types, masks="segm" in iou_types)
    pairs = {iou_type: find_pairs(objects, proposals, iou_type) for iou_type in iou_types}
    ranks = {iou_type: ranks_by_area(found, objects.areas) for iou_type, found in pairs.items()}
    categories = proposals.categories.astype(np.int32)  # kept for every proposal: small
    return Part(count, proposals.scores, categories, objects.areas, pairs, ranks)


def without_objects(count: int) -> Part:
    """Of an image that has none: nothing of its results matters but their number."""
    nothing = np.zeros(0)
    return Part(count, nothing, nothing, nothing, {}, {})


def ranks_by_area(pairs: Pairs, areas: np.ndarray) -> dict[str, np.ndarray]:
    """The ranks (T, G) of the objects of each size range; ranges without objects are left out."""
    ranks = {}
    for area, (low, high) in AREAS.items():
        inside = (areas >= low) & (areas <= high)
        if inside.any():
            number = np.cumsum(inside) - 1  # of the objects that count
            keep = inside[pairs.objects]
            chosen = Pairs(pairs.proposals[keep], number[pairs.objects[keep]], pairs.ious[keep])
            ranks[area] = match_pairs(chosen, int(inside.sum()))
    return ranks


def join_parts(parts: Sequence[Part]) -> Ranks:
    """The ranks of an image whose results came in several parts, given in the order of the file."""
    if len(parts) == 1:
        return parts[0].ranks
    scores = np.concatenate([part.scores for part in parts])
    categories = np.concatenate([part.categories for part in parts])
    place = np.empty(len(scores), np.int64)
    place[np.lexsort((categories, -scores))] = np.arange(len(scores))
    begins = np.cumsum([0, *(len(part.scores) for part in parts)])
    ranks: Ranks = {}
    for iou_type in set.intersection(*(set(part.pairs) for part in parts)):
        found = [part.pairs[iou_type] for part in parts]
        proposals = place[np.concatenate([p.proposals + begin for p, begin in zip(found, begins, strict=False)])]
        keep = proposals < TOP
        objects = np.concatenate([p.objects for p in found])[keep]
        ious = np.concatenate([p.ious for p in found])[keep]
        ranks[iou_type] = ranks_by_area(Pairs(proposals[keep], objects, ious), parts[0].areas)
    return ranks
