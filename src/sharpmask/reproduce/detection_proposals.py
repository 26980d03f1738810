"""Proposals of the detection study's sources, kept in its folder photo by photo."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from sharpmask.checkpoints import load_network
from sharpmask.data.coco import read_coco
from sharpmask.data.photos import read_photo
from sharpmask.detection.rpn import load_rpn
from sharpmask.evaluation.baselines import selective_search
from sharpmask.evaluation.inputs import Record
from sharpmask.files import atomic_write
from sharpmask.proposals.proposer import Proposer
from sharpmask.reproduce.datasets import Photos
from sharpmask.reproduce.detection_rows import COUNTS
from sharpmask.reproduce.measure import photo_key, read_lines
from sharpmask.reproduce.study import SELECTIVE_SEARCH
from sharpmask.runtimes import prepare

RPN = "rpn-network/rpn.safetensors"

# Pixels and a number -> records with bbox, score and, where there is one, a mask.
Method = Callable[[np.ndarray, int], list[Record]]


class Sources:
    """The methods that propose boxes.

    Args:
        folder: of the study, with the annotations of its photos (train.json, val.json) and the trained RPN.
        parts: "train" and "val" -> their photos.
        model: of DeepMask's and SharpMask's proposals.
        device: of all networks.
    """

    def __init__(self, folder: Path, parts: Mapping[str, Photos], model: str, device: torch.device) -> None:
        self.folder, self.parts, self.model, self.device = folder, parts, model, device
        self._methods: dict[str, Method] = {}

    def propose(self, source: str) -> Method:
        """The method of a source."""
        if source not in self._methods:
            self._methods[source] = self._open(source)
        return self._methods[source]

    def collect(self, source: str, part: str, count: int, say: Callable[[str], None]) -> None:
        """Write PART-SOURCE.json, COCO results of the best `count` proposals of each photo, if it is not there."""
        results = self.folder / f"{part}-{source}.json"
        if results.exists():
            return
        say(f"detection: proposals of {source} for the {part} photos")
        records = [r for line in self._lines(source, part, count).values() for r in line["records"]]
        if part == "train":
            records = [{key: r[key] for key in ("image_id", "bbox", "score")} for r in records]
        with atomic_write(results) as temporary:
            temporary.write_text(json.dumps(records), encoding="utf-8")
        (self.folder / f"{part}-{source}.jsonl").unlink()

    def _lines(self, source: str, part: str, count: int) -> Mapping[str, dict[str, Any]]:
        """Proposals photo by photo, going on where a stop has left them."""
        file = self.folder / f"{part}-{source}.jsonl"
        done = read_lines(file, {"source": source, "count": count})
        photos = read_coco(self.folder / f"{part}.json").images
        with open(file, "a", encoding="utf-8") as out:
            for photo in tqdm(photos, desc=f"{source}, {part}", unit="photo", leave=False):
                if photo_key(photo.id) in done:
                    continue
                pixels = read_photo(photo, self.parts[part].images)
                records = [{"image_id": photo.id, **r} for r in self.propose(source)(pixels, count)]
                line = {"image_id": photo.id, "records": records}
                out.write(json.dumps(line) + "\n")
                out.flush()
                done[photo_key(photo.id)] = line
        return done

    def _open(self, source: str) -> Method:
        if source == SELECTIVE_SEARCH:
            return lambda pixels, count: _records(*selective_search(pixels, top=count))
        if source == "rpn":
            network = load_rpn(self.folder / RPN).to(self.device)

            def by_rpn(pixels: np.ndarray, count: int) -> list[Record]:
                boxes, scores = network.propose(pixels, top=count)
                return _records(np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1), scores)

            return by_rpn
        network_of_masks = load_network(self.model)
        chosen = network_of_masks.deepmask if source == "deepmask" else network_of_masks
        proposer = Proposer(prepare(chosen, device=self.device), top=COUNTS[-1])

        def by_masks(pixels: np.ndarray, count: int) -> list[Record]:
            found = proposer.propose(pixels, top=count).to_coco(0)
            return [{key: r[key] for key in ("bbox", "score", "segmentation")} for r in found]

        return by_masks


def _records(boxes_xywh: np.ndarray, scores: np.ndarray) -> list[Record]:
    return [
        {"bbox": [round(v, 2) for v in box], "score": score}
        for box, score in zip(boxes_xywh.tolist(), scores.tolist(), strict=True)
    ]
