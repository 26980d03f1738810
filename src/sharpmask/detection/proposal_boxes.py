"""The boxes that a detector is trained on: from a file of proposals, or computed once with a model and kept.

Only boxes and their order are needed for training. A COCO results file of any program will do. What is computed here is
kept as one JSON line a photo, so that a run that was stopped goes on with the next photo.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sharpmask.data.coco import CocoDataset
from sharpmask.data.photos import PhotoCache, UnreadablePhoto
from sharpmask.detection.sampling import xyxy
from sharpmask.errors import ConfigError, DataError
from sharpmask.evaluation.inputs import read_annotations, read_results
from sharpmask.files import file_digest
from sharpmask.networks.specs import SPECS

# Image id -> boxes (N, 4) xyxy, best first, within the image, each at least a pixel wide and high.
ProposalBoxes = dict[int, torch.Tensor]


def read_proposals(path: str | Path, dataset: CocoDataset, *, count: int) -> ProposalBoxes:
    """The best `count` boxes of every image from a COCO results file (boxes, or masks whose boxes are taken).

    Raises:
        DataError: the file cannot be used, is of other images, or has proposals for none of these.
    """
    truth = read_annotations(dataset.path)
    results = read_results(path, truth)
    boxes = {}
    for image_id, record in dataset.image_by_id.items():
        found = results.detections(image_id, truth, limit=count, boxes=True, masks=False).boxes_xywh
        boxes[image_id] = _usable(xyxy([] if found is None else found, (record.height, record.width)))
    if not any(len(entry) for entry in boxes.values()):
        raise DataError(f"{path}: has no proposals for the images of {dataset.path}")
    return boxes


def compute_proposals(
    dataset: CocoDataset,
    image_dir: str | Path,
    *,
    model: str,
    count: int,
    cache: Path,
    device: str | None = None,
) -> ProposalBoxes:
    """The best `count` boxes of every image by a proposal model, kept in `cache` and computed only once.

    Raises:
        ConfigError: there is no such model, or `cache` holds the boxes of another model, number or data set.
        DataError: more than a few photos cannot be read; a few are reported, and have no proposals.
    """
    from sharpmask.checkpoints import load_network
    from sharpmask.proposals.proposer import Proposer
    from sharpmask.runtimes import prepare

    identity = {"model": _identity(model), "count": count, "annotations": file_digest(dataset.path)}
    photos = PhotoCache(dataset, image_dir, 0)
    proposers: list[Proposer] = []

    def propose(image_id: int) -> np.ndarray:
        if not proposers:  # only where there is something left to do
            proposers.append(Proposer(prepare(load_network(model), device=device), top=count))
        return proposers[0].propose(photos[image_id]).boxes

    lines = kept_lines(cache, identity, list(dataset.image_by_id), propose)
    photos.report_unreadable()
    return {
        image_id: _usable(torch.tensor(lines.get(image_id, []), dtype=torch.float32).reshape(-1, 4))
        for image_id in dataset.image_by_id
    }


def kept_lines(
    cache: Path, identity: Mapping[str, Any], image_ids: list[int], make: Callable[[int], np.ndarray]
) -> dict[int, list[list[float]]]:
    """Boxes of each image from `cache`; those that it does not hold yet are made and added to it at once. It has no
    entry for a photo that cannot be read.

    Raises:
        ConfigError: the file is of another `identity`, or none of ours.
        DataError: it is damaged.
    """
    header = json.dumps({"identity": dict(identity)}, sort_keys=True) + "\n"
    text = cache.read_bytes().decode("utf-8", "replace") if cache.exists() else ""
    if not text.startswith(header) and not header.startswith(text):  # a stop may have cut the first line, too
        raise ConfigError(
            f"{cache} holds something else, or the proposals of another model, number or data set; remove it, or name "
            "another"
        )
    whole = text[: text.rfind("\n") + 1] or header  # a stop may have cut the last line
    if whole != text:
        try:
            cache.write_text(whole, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {cache}: {error.strerror or error}") from error
    try:
        lines = {int(entry["image_id"]): entry["boxes"] for entry in map(json.loads, whole.splitlines()[1:])}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{cache} is damaged ({error}); remove it, and it is made anew") from None
    left = [image_id for image_id in image_ids if image_id not in lines]
    with open(cache, "a", encoding="utf-8") as out:
        for image_id in tqdm(left, desc="proposals", unit="photo", disable=None if left else True):
            with suppress(UnreadablePhoto):
                lines[image_id] = np.asarray(make(image_id), np.float64).round(2).tolist()
            if image_id not in lines:
                continue
            out.write(json.dumps({"image_id": image_id, "boxes": lines[image_id]}) + "\n")
            out.flush()
    return lines


def _usable(boxes: torch.Tensor) -> torch.Tensor:
    sides = boxes[:, 2:] - boxes[:, :2]
    return boxes[(sides >= 1).all(dim=1)]


def _identity(model: str) -> str:
    """What is in a model's file, bundled ones after their names."""
    spec = SPECS.get(model)
    if spec is not None and spec.weights is not None:
        with resources.as_file(resources.files("sharpmask") / "weights" / spec.weights) as path:
            return f"{model} {file_digest(path)}"
    return file_digest(model) if Path(model).is_file() else model
