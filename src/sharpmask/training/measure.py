"""AR of a network on whole photos, as a run measures itself: which photos, and what is found in them."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sharpmask.data.coco import ImageRecord, read_coco
from sharpmask.data.folds import fold_ids
from sharpmask.data.photos import read_photo
from sharpmask.errors import DataError
from sharpmask.evaluation.inputs import read_json
from sharpmask.indexing import evenly
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.proposals.proposer import Proposer
from sharpmask.runtimes import prepare
from sharpmask.training.config import TrainConfig

TOP = 1000


def measured_truth(annotations: str | Path, photos: int, ids: frozenset[int] | None = None) -> dict[str, Any]:
    """A COCO file cut down to at most so many exhaustively annotated photos, evenly spread, of `ids` or of all.

    Raises:
        DataError: there is none.
    """
    truth: dict[str, Any] = dict(read_json(annotations))
    usable = [p for p in truth["images"] if p.get("exhaustive", True) and (ids is None or p["id"] in ids)]
    if not usable:
        raise DataError(f"{annotations}: no photo is annotated exhaustively, so that there is none to measure AR on")
    truth["images"] = evenly(usable, photos)
    chosen = {photo["id"] for photo in truth["images"]}
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in chosen]
    return truth


class Part(NamedTuple):
    """Photos to measure on: a cut-down COCO file, the records of its photos by id, and the folder they lie in."""

    truth: dict[str, Any]
    records: Mapping[int, ImageRecord]
    images: Path


def measured_parts(config: TrainConfig) -> dict[str, Part]:
    """What the ledger measures a run on: "val" and "fold", as far as there are any.

    Raises:
        DataError: there is no photo to measure on.
    """
    parts = {}
    if config.measure_photos and config.val_annotations and config.val_images:
        records = read_coco(config.val_annotations).image_by_id
        truth = measured_truth(config.val_annotations, config.measure_photos)
        parts["val"] = Part(truth, records, Path(config.val_images))
    if config.measure_photos and config.fold:
        dataset = read_coco(config.annotations)
        truth = measured_truth(config.annotations, config.measure_photos, fold_ids(dataset, config.fold))
        parts["fold"] = Part(truth, dataset.image_by_id, Path(config.images))
    return parts


def propose_for(network: DeepMask | SharpMask, part: Part, device: torch.device) -> list[dict[str, Any]]:
    """COCO results of the network on the photos of a part, by the default ranking.

    A photo that cannot be read is named on standard error, and nothing is found in it.
    """
    proposer = Proposer(prepare(network, device=device), top=TOP)
    results: list[dict[str, Any]] = []
    for photo in part.truth["images"]:
        try:
            pixels = read_photo(part.records[photo["id"]], part.images)
        except DataError as error:
            print(f"{error}; nothing is found in it", file=sys.stderr)
            continue
        results += proposer.propose(pixels).to_coco(photo["id"])
    return results
