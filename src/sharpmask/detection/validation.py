"""What a run measures of its detector: the AP of boxes on validation photos."""

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


class Validation:
    """Measures detectors on at most `photos` exhaustively annotated photos of a data set, evenly spread, with fixed
    proposals.

    Raises:
        DataError: the data set does not list a class under the id that the detector has it, or has no such photo.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        image_dir: str | Path,
        proposals: ProposalBoxes,
        classes: Sequence[DetectorClass],
        photos: int,
    ) -> None:
        for entry in classes:
            if dataset.categories.get(entry.id) != entry.name:
                raise DataError(f"{dataset.path}: has no category {entry.id} '{entry.name}' as the training data have")
        self.classes, self.proposals, self.image_dir = classes, proposals, Path(image_dir)
        self.records = evenly([r for r in dataset.images if r.exhaustive and dataset.image_by_id[r.id] is r], photos)
        if not self.records:
            raise DataError(
                f"{dataset.path}: no photo is annotated exhaustively, so that there is none to measure AP on"
            )
        chosen = {record.id for record in self.records}
        self.truth: dict[str, Any] = {
            "images": [
                {"id": r.id, "file_name": r.file_name, "height": r.height, "width": r.width} for r in self.records
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
                if a.image_id in chosen
            ],
            "categories": [{"id": key, "name": name} for key, name in dataset.categories.items()],
        }
        self.dataset = dataset

    def scalars(self, network: FastRCNN | MultiPathNet, device: torch.device) -> dict[str, float]:
        """AP, AP50 and VOC's AP50 of boxes."""
        network.eval()
        results = []
        for record in self.records:
            pixels = read_photo(record, self.image_dir)
            scored = score_boxes(network, pixels, self.proposals[record.id], device)
            found = select(scored, min_score=0.01, nms=0.3, vote=0.5, top=100)
            boxes = torch.cat([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], dim=1)
            for label, score, box in zip(found.labels.tolist(), found.scores.tolist(), boxes.tolist(), strict=True):
                results.append(
                    {"image_id": record.id, "category_id": self.classes[label - 1].id, "bbox": box, "score": score}
                )
        scores = evaluate_detections(
            self.truth, results, iou_types=("bbox",), classes=[c.name for c in self.classes], resamples=0
        )
        figures = scores.figures["bbox"]
        return {"box_ap": figures["AP"], "box_ap50": figures["AP50"], "box_voc_ap50": figures[VOC]}
