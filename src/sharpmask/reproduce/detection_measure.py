"""What a row of the detection study finds with each number of proposals, and its figures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sharpmask.data.coco import read_coco
from sharpmask.data.photos import read_photo
from sharpmask.detection.classes import DetectorClass
from sharpmask.detection.infer import ScoredBoxes, score_boxes, select
from sharpmask.detection.store import load_detector
from sharpmask.detection.train import RESULT
from sharpmask.evaluation.detections import DetectionScores, evaluate_detections
from sharpmask.evaluation.inputs import Record, read_json
from sharpmask.files import file_digest
from sharpmask.reproduce.detection_rows import COUNTS, DetectionRow
from sharpmask.reproduce.measure import photo_key, read_lines

# As in the papers: no box voting, and a detection has the mask of its own proposal. `Detector` does otherwise.
_MIN_SCORE, _NMS, _DETECTIONS = 0.01, 0.3, 100


def measure_row(row: DetectionRow, folder: Path, images: Path, device: torch.device) -> dict[int, DetectionScores]:
    """A row's figures for each number of proposals, on the photos of `folder`/val.json, which lie in `images`."""
    classes = [entry.name for entry in load_detector(folder / row.name / RESULT)[1]]
    return {
        count: evaluate_detections(
            folder / "val.json",
            records,
            name=row.label,
            iou_types=("bbox", "segm") if row.masks else ("bbox",),
            classes=classes,
            resamples=200 if count == COUNTS[-1] else 0,
        )
        for count, records in _detections(row, folder, images, device).items()
    }


def _detections(row: DetectionRow, folder: Path, images: Path, device: torch.device) -> dict[int, list[Record]]:
    """Detections for each number of proposals, kept photo by photo."""
    file = folder / row.name / "detections.jsonl"
    network, classes = load_detector(folder / row.name / RESULT)
    network.to(device)
    done = read_lines(file, {"detector": file_digest(folder / row.name / RESULT)})
    proposals: dict[str, list[Record]] = {}
    for record in read_json(folder / f"val-{row.source}.json"):
        proposals.setdefault(photo_key(record["image_id"]), []).append(record)
    with open(file, "a", encoding="utf-8") as out:
        photos = read_coco(folder / "val.json").images
        for photo in tqdm(photos, desc=f"measure {row.label}", unit="photo", leave=False):
            key = photo_key(photo.id)
            if key in done:
                continue
            own = proposals.get(key, [])
            boxes = np.array([r["bbox"] for r in own], np.float32).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            scored = score_boxes(network, read_photo(photo, images), boxes, device)
            by_count = {str(c): _chosen(scored, own, c, photo.id, classes) for c in COUNTS}
            done[key] = {"image_id": photo.id, "found": by_count}
            out.write(json.dumps(done[key]) + "\n")
            out.flush()
    return {count: [r for line in done.values() for r in line["found"][str(count)]] for count in COUNTS}


def _chosen(
    scored: ScoredBoxes, own: Sequence[Record], count: int, image_id: Any, classes: Sequence[DetectorClass]
) -> list[Record]:
    """Detections among the first `count` proposals, as COCO records."""
    found = select(scored, min_score=_MIN_SCORE, nms=_NMS, top=_DETECTIONS, proposals=count)
    masks = [{k: own[place][k] for k in ("segmentation",) if k in own[place]} for place in found.proposals.tolist()]
    return [{**record, **mask} for record, mask in zip(found.to_coco(image_id, classes), masks, strict=True)]
