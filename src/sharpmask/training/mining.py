"""What a trained model adds to the data that the next one is trained on.

Two things. Labels: in photos of which only some objects are annotated, masks that the model is sure of and that no
annotation explains become annotations, marked as such ("self-training"). Negatives: in photos with every object
annotated, windows that the model takes for objects though there is none; drawn at random they would hardly be met.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from tqdm import tqdm

from sharpmask.data.coco import Annotation, CocoDataset, encode_mask, read_coco
from sharpmask.data.geometry import CanonicalGeometry, Window
from sharpmask.data.negatives import NegativeSource
from sharpmask.data.photos import PhotoCache
from sharpmask.errors import ConfigError, DataError
from sharpmask.evaluation.inputs import read_json
from sharpmask.proposals.proposer import Proposer
from sharpmask.proposals.result import Proposals

PSEUDO_CATEGORY = "object"


def add_labels(
    proposer: Proposer,
    annotations: str | Path,
    images: str | Path,
    *,
    min_score: float,
    min_stability: float = 0.0,
    nms: float = 0.5,
    most: int = 20,
    progress: bool = True,
) -> tuple[dict[str, Any], int]:
    """The annotations, with masks of the model added to the photos that are not annotated exhaustively.

    An added annotation has the category "object", `"pseudo": true` and its `score`. The photos stay what they are: not
    exhaustive.

    Args:
        min_score, min_stability: what a mask needs to be taken for an object; stability needs a proposer that
            computes it.
        nms: of two masks with a larger IoU the better one is taken; a mask is not added either where it overlaps an
            annotation by so much, or lies by so much of itself within one.
        most: added to one photo, the best ones.

    Returns: the content of a COCO file, and how many were added.

    Raises:
        DataError: every photo is annotated exhaustively, or the annotations cannot be read.
    """
    dataset, content = read_coco(annotations), copy.deepcopy(read_json(annotations))
    photos = [record for record in dataset.images if not record.exhaustive]
    if not photos:
        raise DataError(f"{annotations}: every photo is annotated exhaustively, so that no label is missing")
    category = 1 + max((entry["id"] for entry in content.get("categories", [])), default=0)
    number = 1 + max((entry["id"] for entry in content["annotations"]), default=0)
    added: list[dict[str, Any]] = []
    bar = tqdm([record.id for record in photos], unit="photo", disable=None if progress else True)
    for image_id, pixels in PhotoCache(dataset, images, 0).readable(bar):
        found = proposer.propose(pixels).filter(min_score=min_score, min_area=CanonicalGeometry().min_area)
        if min_stability:
            found = found.filter(min_stability=min_stability)
        found = found[~_explained(found, dataset, image_id, nms)].nms(nms)[:most]
        for entry in found.to_coco(image_id, category):
            area = int(coco_mask.area(entry["segmentation"]))
            added.append({**entry, "id": number + len(added), "area": area, "iscrowd": 0, "pseudo": True})
    content["annotations"] = content["annotations"] + added
    content["categories"] = [*content.get("categories", []), {"id": category, "name": PSEUDO_CATEGORY}]
    return content, len(added)


def _explained(found: Proposals, dataset: CocoDataset, image_id: int, limit: float) -> np.ndarray:
    """(N,) whether a mask overlaps an annotation, or lies within one, by more than `limit`."""
    record = dataset.image_by_id[image_id]
    objects = [_mask_or_box(annotation, record.height, record.width) for annotation in dataset.annotations_of[image_id]]
    if not objects or not len(found):
        return np.zeros(len(found), bool)
    overlap = coco_mask.iou(found.rles, objects, [0] * len(objects))
    within = coco_mask.iou(found.rles, objects, [1] * len(objects))  # of the mask's own area
    return np.asarray(((overlap > limit) | (within > limit)).any(axis=1))


def _mask_or_box(annotation: Annotation, height: int, width: int) -> dict[str, Any]:
    """The RLE of an annotation's mask, or of its box where it has none that can be drawn."""
    try:
        return encode_mask(annotation, height, width)
    except DataError:
        (rle,) = coco_mask.frPyObjects(np.array([annotation.bbox]), height, width)
        return dict(rle)


def hard_negatives(
    proposer: Proposer,
    annotations: str | Path,
    images: str | Path,
    *,
    min_score: float,
    most: int = 20,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """The windows without an object in their middle that the model scores highest, `most` of each exhaustive photo.

    Returns: what `negatives.read_hard_negatives` reads.

    Raises:
        DataError: no photo is annotated exhaustively, or the annotations cannot be read.
    """
    spec = proposer.network.spec
    # The nearest that any run lets negatives come; each run leaves out what is too near by its own distances.
    geometry = CanonicalGeometry(
        patch_size=spec.patch_size, context=spec.context, negative_shift=spec.patch_size / 5, negative_octaves=1.0
    )
    dataset = read_coco(annotations)
    source = NegativeSource(dataset, geometry)
    found: list[dict[str, Any]] = []
    places = dict(zip(source.image_ids, source.places, strict=True))
    bar = tqdm(places, unit="photo", disable=None if progress else True)
    for image_id, pixels in PhotoCache(dataset, images, 0).readable(bar):
        proposals = proposer.propose(pixels).filter(min_score=min_score)
        taken = 0
        for window, score in _windows(proposals, spec.patch_size):
            # The window's centre may lie on the padding beyond the photo's edge by rounding.
            if taken < most and source.is_negative(places[image_id], window):
                found.append({"image_id": image_id, **vars(window), "score": score})
                taken += 1
    return found


def _windows(proposals: Proposals, patch_size: int) -> Iterator[tuple[Window, float]]:
    for (left, top, right, bottom), score in zip(proposals.windows.tolist(), proposals.scores.tolist(), strict=True):
        side = (right - left + bottom - top) / 2
        yield Window((left + right) / 2, (top + bottom) / 2, patch_size / side), score


def check_limits(min_score: float, min_stability: float, nms: float, most: int) -> None:
    """ConfigError for what is out of range."""
    for name, value in (("min-score", min_score), ("min-stability", min_stability), ("nms", nms)):
        if not 0 <= value <= 1:
            raise ConfigError(f"--{name} {value:g}: must lie between 0 and 1")
    if most < 1:
        raise ConfigError(f"--most {most}: must be at least 1")
