"""A row's proposals on the validation photos, measured photo by photo; what is done is kept, so that a stop costs one.

Of each photo only the ranks of the proposals that find its objects are written down, not the proposals.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sharpmask.errors import DataError
from sharpmask.evaluation.inputs import Annotations, ImageId, Record, read_annotations, read_results
from sharpmask.evaluation.masks import mask_ious
from sharpmask.evaluation.recall import image_ranks, recall_of_ranks
from sharpmask.reproduce.datasets import Photos
from sharpmask.reproduce.metrics import RESAMPLES, SEED, Measured

# Records of all proposals of a photo, given by its path and id.
Propose = Callable[[Path, Any], Sequence[Record]]


@dataclasses.dataclass(frozen=True)
class Validation:
    """The photos that rows are measured on."""

    truth: Annotations
    paths: dict[ImageId, Path]

    def first(self, count: int) -> "Validation":
        """The first `count` photos; raises DataError where one of them is missing."""
        truth = self.truth
        chosen = truth.image_ids[:count]
        paths = {image_id: self.paths[image_id] for image_id in chosen}
        missing = [path for path in paths.values() if not path.is_file()]
        if missing:
            raise DataError(f"{len(missing)} photos of {truth.source} are missing, first {missing[0]}")
        truth = dataclasses.replace(
            truth,
            image_ids=chosen,
            sizes={image_id: truth.sizes[image_id] for image_id in chosen},
            objects={image_id: truth.objects[image_id] for image_id in chosen if image_id in truth.objects},
        )
        return Validation(truth, paths)


def read_validation(photos: Photos) -> Validation:
    """All photos of a part of a data set.

    Raises:
        DataError: the annotations cannot be read, or an image has no file name.
    """
    truth = read_annotations(photos.annotations)
    names = {image_id: name for name, image_id in truth.file_names.items()}
    unnamed = [image_id for image_id in truth.image_ids if image_id not in names]
    if unnamed:
        raise DataError(f"{photos.annotations}: image {unnamed[0]} has no file_name")
    return Validation(truth, {image_id: photos.images / names[image_id] for image_id in truth.image_ids})


def measure(
    propose: Propose,
    validation: Validation,
    file: Path,
    *,
    name: str,
    identity: dict[str, Any],
    iou_types: Sequence[str],
    upper_bound: bool = False,
) -> Measured:
    """Measure proposals on all photos, going on where `file` ends.

    Args:
        file: one JSON line a photo, after a first line with `identity`. A file of another identity is begun anew.
        name: of the row, for the progress bar and the recall.
        identity: what the proposals depend on.
        iou_types: "bbox", "segm" or both.
        upper_bound: note each object's best IoU with any mask.
    """
    truth = validation.truth
    done = read_lines(file, identity)
    todo = [image_id for image_id in truth.image_ids if photo_key(image_id) not in done]
    with open(file, "a", encoding="utf-8") as out:
        for image_id in tqdm(todo, desc=f"measure {name}", unit="photo", leave=False):
            records = propose(validation.paths[image_id], image_id)
            line = _photo(records, truth, image_id, iou_types, upper_bound)
            out.write(json.dumps(line) + "\n")
            out.flush()
            done[photo_key(image_id)] = line
    lines = [done[photo_key(image_id)] for image_id in truth.image_ids]
    recall = recall_of_ranks(
        (
            {kind: {area: np.array(ranks) for area, ranks in areas.items()} for kind, areas in line["ranks"].items()}
            for line in lines
        ),
        truth,
        name=name,
        iou_types=iou_types,
        proposals=sum(min(line["proposals"], 1000) for line in lines),
        empty_images=sum(not line["proposals"] and bool(truth.objects.get(line["image_id"])) for line in lines),
        seed=SEED,
        resamples=RESAMPLES,
    )
    best = [np.array(line["best"]) for line in lines] if upper_bound else None
    return Measured(recall, best, sum(line["proposals"] for line in lines))


def _photo(
    records: Sequence[Record], truth: Annotations, image_id: ImageId, iou_types: Sequence[str], upper_bound: bool
) -> dict[str, Any]:
    ranks = image_ranks(truth, read_results(records, truth), image_id, iou_types)
    line: dict[str, Any] = {
        "image_id": image_id,
        "proposals": len(records),
        "ranks": {kind: {area: found.tolist() for area, found in areas.items()} for kind, areas in ranks.items()},
    }
    if upper_bound:
        objects = truth.truth(image_id, boxes=False, masks=True).rles or []
        ious = mask_ious([record["segmentation"] for record in records], objects)
        line["best"] = ious.max(axis=0, initial=0.0).tolist()
    return line


def photo_key(image_id: ImageId) -> str:
    return json.dumps(image_id)


def read_lines(file: Path, identity: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The whole lines of a file of this identity, by photo; a line that a stop has cut is removed."""
    header = json.dumps({"identity": identity}, sort_keys=True) + "\n"
    text = file.read_bytes().decode("utf-8", "replace") if file.exists() else ""
    if not text.startswith(header):
        file.write_text(header, encoding="utf-8")
        return {}
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    lines = [json.loads(line) for line in whole.splitlines()[1:]]
    return {photo_key(line["image_id"]): line for line in lines}
