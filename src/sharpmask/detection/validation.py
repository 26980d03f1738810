"""What a run measures of its detector: the AP of boxes on validation photos."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from sharpmask.data.coco import CocoDataset
from sharpmask.data.photos import read_photo
from sharpmask.detection.classes import DetectorClass
from sharpmask.detection.infer import score_boxes, select
from sharpmask.detection.networks import FastRCNN, MultiPathNet
from sharpmask.detection.proposal_boxes import ProposalBoxes
from sharpmask.errors import DataError
from sharpmask.evaluation.detections import VOC, evaluate_detections
from sharpmask.indexing import evenly


def validation_part(dataset: CocoDataset, image_dir: str | Path, photos: int) -> CocoDataset:
    """At most `photos` exhaustively annotated images of a data set, evenly spread, without those that cannot be read.

    Raises:
        DataError: there is none.
    """
    usable = [r for r in dataset.images if r.exhaustive and dataset.image_by_id[r.id] is r]
    if not usable:
        raise DataError(f"{dataset.path}: no photo is annotated exhaustively, so that there is none to measure AP on")
    chosen = []
    for record in evenly(usable, photos):
        try:
            read_photo(record, Path(image_dir))
            chosen.append(record)
        except DataError as error:
            print(f"{error}; it is left out of the validation", file=sys.stderr)
    if not chosen:
        raise DataError(f"{dataset.path}: none of the photos to validate on can be read")
    kept = {record.id for record in chosen}
    annotations = tuple(a for a in dataset.annotations if a.image_id in kept)
    return dataclasses.replace(dataset, images=tuple(chosen), annotations=annotations)


class Validation:
    """Measures detectors on the photos of a data set with fixed proposals.

    Raises:
        DataError: the data set does not list a class under the id that the detector has it.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        image_dir: str | Path,
        proposals: ProposalBoxes,
        classes: Sequence[DetectorClass],
    ) -> None:
        for entry in classes:
            if dataset.categories.get(entry.id) != entry.name:
                raise DataError(f"{dataset.path}: has no category {entry.id} '{entry.name}' as the training data have")
        self.dataset, self.image_dir, self.proposals, self.classes = dataset, Path(image_dir), proposals, classes
        self.truth: dict[str, Any] = {
            "images": [
                {"id": r.id, "file_name": r.file_name, "height": r.height, "width": r.width} for r in dataset.images
            ],
            "annotations": [
                {
                    "id": a.id,
                    "image_id": a.image_id,
                    "category_id": a.category_id,
                    "bbox": list(a.bbox),
                    "area": a.area,
                    "iscrowd": int(a.iscrowd),
                }
                for a in dataset.annotations
            ],
            "categories": [{"id": key, "name": name} for key, name in dataset.categories.items()],
        }

    def scalars(self, network: FastRCNN | MultiPathNet, device: torch.device) -> dict[str, float]:
        """AP, AP50 and VOC's AP50 of boxes."""
        network.eval()
        results = []
        for record in self.dataset.images:
            pixels = read_photo(record, self.image_dir)
            scored = score_boxes(network, pixels, self.proposals[record.id], device)
            found = select(scored, min_score=0.01, nms=0.3, vote=0.5, top=100)
            results += found.to_coco(record.id, self.classes)
        scores = evaluate_detections(
            self.truth, results, iou_types=("bbox",), classes=[c.name for c in self.classes], resamples=0
        )
        figures = scores.figures["bbox"]
        return {"box_ap": figures["AP"], "box_ap50": figures["AP50"], "box_voc_ap50": figures[VOC]}
