"""The detection study: one detector with the proposals of several methods, and MultiPathNet with and without its parts.

Every row is trained and tested with the proposals it names, on the same photos, for the same number of steps. What is
finished is kept in the study's folder and never done again.
"""

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import yaml

from sharpmask.checkpoints import DEFAULT_MODEL
from sharpmask.data.coco import read_coco
from sharpmask.data.photos import read_photo
from sharpmask.detection.classes import DetectorClass, choose_classes
from sharpmask.detection.config import DetectorConfig, detector_config_file
from sharpmask.detection.features import FeatureStore
from sharpmask.detection.rpn import train_rpn
from sharpmask.detection.specs import get_detector_spec
from sharpmask.detection.train import RESULT, initial_detector, train_detector
from sharpmask.errors import ConfigError, MissingExtraError
from sharpmask.evaluation.baselines import require_opencv
from sharpmask.evaluation.inputs import read_json
from sharpmask.files import atomic_write, file_digest, make_folder
from sharpmask.proposals.proposer import pick_device
from sharpmask.reproduce.datasets import Photos
from sharpmask.reproduce.detection_measure import measure_row
from sharpmask.reproduce.detection_proposals import RPN, Sources
from sharpmask.reproduce.detection_rows import (
    COUNTS,
    ROWS,
    TRAIN_COUNT,
    DetectionPlan,
    DetectionResults,
    DetectionRow,
)
from sharpmask.reproduce.machine import describe_machine
from sharpmask.reproduce.methods import weights_digest
from sharpmask.reproduce.plan import kept_plan
from sharpmask.reproduce.study import SELECTIVE_SEARCH, Options

Say = Callable[[str], None]
# Shares of the minutes: proposals, training, and what is left for measuring.
_PROPOSALS, _TRAINING = 0.5, 0.38
_LEAST_PHOTOS, _LEAST_STEPS, _PROBE_STEPS = 6, 20, 4


def run_detection_study(options: Options, say: Say) -> DetectionResults:
    """Do what is not done yet of the study in `options.output`/detection, and return its results.

    Raises:
        SharpMaskError: data, weights or settings that cannot be used, or that differ from those the folder has.
    """
    if options.data.train is None:
        raise ConfigError(f"{options.data.folder} has no photos to train on, only those to measure on")
    study = _Study(options, options.data.train, say)
    plan = study.plan()
    machine = study.machine()
    study.write_subsets(plan)
    dataset = read_coco(study.folder / "train.json")
    classes = choose_classes(dataset, min_examples=options.min_examples)  # before hours are spent for none
    study.collect_proposals(plan)
    scores = {}
    for number, row in enumerate(study.rows, start=1):
        say(f"detection: row {number} of {len(study.rows)}, {row.label}: {plan.steps} steps, {plan.photos} photos")
        study.train(row, plan.steps)
        scores[row.name] = measure_row(row, study.folder, options.data.val.images, study.device)
    return DetectionResults(
        plan=plan,
        data=options.data.name,
        rows=study.rows,
        classes=classes,
        min_examples=options.min_examples,
        left_out=len(dataset.categories) - len(classes),
        shown=_objects_by_class(study.folder / "val.json"),
        scores=scores,
        trunk=study.trunk,
        short_side=study.short_side,
        weights=Path(study.weights).name,
        notes=study.notes,
        machine=machine,
    )


def _objects_by_class(annotations: Path) -> dict[str, int]:
    dataset = read_coco(annotations)
    return dict(Counter(dataset.categories[a.category_id] for a in dataset.annotations if not a.iscrowd))


class _Study:
    """The study's folder and what its parts have in common."""

    def __init__(self, options: Options, train: Photos, say: Say) -> None:
        self.options, self.say, self.parts = options, say, {"train": train, "val": options.data.val}
        self.folder = make_folder(options.output / "detection")
        self.device = pick_device(options.device)
        base = options.base or ("resnet50" if self.device.type == "cuda" else "lite0")
        self.trunk = f"{base}-caffe" if options.caffe and base == "resnet50" else base
        if base == "resnet50" and options.trunk_weights is None:
            raise ConfigError(
                "'detection' on ResNet-50 needs ImageNet weights: --trunk-weights FILE (with --caffe if its stride is "
                "on the 1x1 convolutions), or --base lite0, which takes the bundled model's trunk"
            )
        self.weights = options.trunk_weights or DEFAULT_MODEL
        self.model = options.model or DEFAULT_MODEL
        self.notes: tuple[str, ...] = ()
        rows: tuple[DetectionRow, ...] = ROWS
        try:
            require_opencv()
        except MissingExtraError as error:
            rows = tuple(row for row in ROWS if row.source != SELECTIVE_SEARCH)
            self.notes = (f"Selective Search is left out: {error}",)
        self.rows = rows
        # The light trunk's so that the features of some 1,200 photos and their mirror images fit into memory.
        self.short_side = 320 if self.trunk == "lite0" else get_detector_spec(f"fast-rcnn-{self.trunk}").short_side
        self.sources = Sources(self.folder, self.parts, self.model, self.device)

    # Plan

    def plan(self) -> DetectionPlan:
        """The plan in the folder, or a new one, which is written there."""
        options = self.options
        settings = {
            "rows": [row.name for row in self.rows],
            "trunk": self.trunk,
            "weights": weights_digest(self.weights),
            "model": weights_digest(self.model),
            **{part: file_digest(photos.annotations) for part, photos in self.parts.items()},
            **{name: getattr(options, name) for name in ("minutes", "steps", "photos", "min_examples", "seed")},
        }
        return kept_plan(self.folder, DetectionPlan, settings, lambda: self._new_plan(settings))

    def machine(self) -> dict[str, str]:
        """What the study runs on and since when, kept in machine.json."""
        file = self.folder / "machine.json"
        if not file.exists():
            with atomic_write(file) as temporary:
                temporary.write_text(
                    json.dumps(describe_machine(self.options.device), indent=1) + "\n", encoding="utf-8"
                )
        return dict(read_json(file))

    def _new_plan(self, settings: dict[str, Any]) -> DetectionPlan:
        options = self.options
        counts = {part: len(read_json(photos.annotations)["images"]) for part, photos in self.parts.items()}
        photos = min(counts["val"], options.photos or counts["val"])
        if options.steps and options.photos:
            # A quarter of the photos to train on would not be told from all by a few steps.
            return DetectionPlan(settings, min(counts["train"], 10 * photos), photos, options.steps, "as given")
        self.say(f"timing a little of each source and detector, to end in about {options.minutes:g} minutes")
        each = self._seconds_a_photo()
        wanted = photos + counts["train"]
        affordable = int(_PROPOSALS * options.minutes * 60 / each)
        share = min(1.0, affordable / wanted)
        if options.photos is None:
            photos = max(min(photos, _LEAST_PHOTOS), int(photos * share))
        train_photos = max(min(counts["train"], _LEAST_PHOTOS), min(counts["train"], affordable - photos))
        steps = options.steps or self._affordable_steps(train_photos)
        if steps < _LEAST_STEPS or photos + train_photos > 2 * max(affordable, 1):
            raise ConfigError(f"--minutes {options.minutes:g} is too short for 'detection' here: give more")
        return DetectionPlan(settings, train_photos, photos, steps, f"from --minutes {options.minutes:g}")

    def _seconds_a_photo(self) -> float:
        """Proposals of all sources but the RPN, whose time does not count, for one photo."""
        records = read_coco(self.parts["val"].annotations).images[:2]
        began = perf_counter()
        for record in records:
            pixels = read_photo(record, self.parts["val"].images)
            for source in dict.fromkeys(row.source for row in self.rows if row.source != "rpn"):
                self.sources.propose(source)(pixels, COUNTS[-1])
        return (perf_counter() - began) / len(records)

    def _affordable_steps(self, train_photos: int) -> int:
        """Steps for every row and the RPN in the time for training: all share the features of a photo and its mirror
        image, which are computed once as far as they fit into memory.
        """
        probe = self.folder / "probe"
        shutil.rmtree(probe, ignore_errors=True)
        make_folder(probe)
        self._write_subset("train", _LEAST_PHOTOS, probe / "train.json")
        store = self._new_store(probe / "train.json")
        began = perf_counter()
        for image_id in store.dataset.image_by_id:
            store.features(image_id, False)
        photos = len(store.dataset.image_by_id)
        features, size = (perf_counter() - began) / photos, store.used_bytes / photos
        kept = min(1.0, store.limit_bytes / (2 * size * train_photos))
        rng = np.random.default_rng(0)
        boxes = [
            {"image_id": image_id, "score": 0.5, "bbox": [*(rng.random(2) * 100).tolist(), 60.0, 60.0]}
            for image_id in store.dataset.image_by_id
            for _ in range(TRAIN_COUNT)
        ]
        (probe / "boxes.json").write_text(json.dumps(boxes), encoding="utf-8")
        images = [1 / self._images_a_second(row, probe, store) for row in self.rows]
        images.append(images[-1])  # the RPN
        shutil.rmtree(probe, ignore_errors=True)
        left = _TRAINING * self.options.minutes * 60 - kept * 2 * features * train_photos
        step = self.config(self.rows[0], 1, probe).batch_size * sum(each + (1 - kept) * features for each in images)
        return int(left / step)

    def _images_a_second(self, row: DetectionRow, probe: Path, store: FeatureStore) -> float:
        """In training a row on the probe's few photos and random boxes, with their features at hand."""
        config = dataclasses.replace(
            self.config(row, _PROBE_STEPS, probe / row.name),
            annotations=str(probe / "train.json"),
            proposals=str(probe / "boxes.json"),
            min_examples=1,
            flip=False,
        )
        train_detector(config, say=lambda text: None, store=store)
        log = [json.loads(line) for line in (probe / row.name / "log.jsonl").read_text().splitlines()]
        return float(min(entry["images_per_second"] for entry in log[1:]))

    def _new_store(self, annotations: Path) -> FeatureStore:
        """Features of the trunk that all rows and the RPN have, frozen: as many levels as any of them reads."""
        config = dataclasses.replace(self.config(self.rows[0], 1, self.folder), detector=f"multipathnet-{self.trunk}")
        network = initial_detector(config, [DetectorClass(1, "object")]).to(self.device)
        limit = int(config.cache_gigabytes * 2**30)
        return FeatureStore(network, read_coco(annotations), config.images, limit, self.device)

    @cached_property
    def _store(self) -> FeatureStore:
        return self._new_store(self.folder / "train.json")

    # Data and proposals

    def write_subsets(self, plan: DetectionPlan) -> None:
        """train.json and val.json: the annotations of the photos that are used."""
        self._write_subset("train", plan.train_photos, self.folder / "train.json")
        self._write_subset("val", plan.photos, self.folder / "val.json")

    def _write_subset(self, part: str, count: int, path: Path) -> None:
        if path.exists():
            return
        content = read_json(self.parts[part].annotations)
        # Photos with all objects annotated first: they teach most.
        images = sorted(content["images"], key=lambda image: not image.get("exhaustive", True))[:count]
        chosen = {image["id"] for image in images}
        content = {
            "images": images,
            "annotations": [a for a in content["annotations"] if a["image_id"] in chosen],
            "categories": content["categories"],
        }
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")

    def collect_proposals(self, plan: DetectionPlan) -> None:
        """Proposals of all sources for all photos; an RPN is trained first for as many steps as a row."""
        for source in dict.fromkeys(row.source for row in self.rows):
            if source == "rpn" and not (self.folder / RPN).exists():
                self.say(f"detection: training the RPN: {plan.steps} steps")
                config = self.config(self.rows[-1], plan.steps, (self.folder / RPN).parent, fast=True)
                train_rpn(config, resume=True, store=self._store)
            for part, count in (("train", TRAIN_COUNT), ("val", COUNTS[-1])):
                self.sources.collect(source, part, count, self.say)

    # Rows

    def config(self, row: DetectionRow, steps: int, output: Path, *, fast: bool = False) -> DetectorConfig:
        """The run of a row: the shipped light schedule with another number of steps; `fast`: on Fast R-CNN's spec."""
        values = yaml.safe_load(Path(detector_config_file("detector-cpu")).read_text(encoding="utf-8"))
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        values |= {
            "annotations": str(self.folder / "train.json"),
            "images": str(self.parts["train"].images),
            "output": str(output),
            "detector": f"fast-rcnn-{self.trunk}" if fast else row.detector_name(self.trunk),
            "proposals": str(self.folder / f"train-{row.source}.json"),
            "proposal_count": TRAIN_COUNT,
            "trunk_weights": self.weights,
            "min_examples": self.options.min_examples,
            "steps": steps,
            "warmup": min(values["warmup"], steps // 5),
            "average": min(values["average"], 1 - 10 / max(steps, 20)),
            "seed": self.options.seed,
            "device": self.options.device,
            "checkpoint_every": 200,
            "log_every": max(1, min(20, steps // 2)),
            "short_side": self.short_side,
            "cache_gigabytes": 4.0,
        }
        return DetectorConfig(**values)

    def train(self, row: DetectionRow, steps: int) -> None:
        """Train a row, going on where it was."""
        output = self.folder / row.name
        if not (output / RESULT).exists():
            train_detector(self.config(row, steps, output), resume=True, say=lambda text: None, store=self._store)
            for checkpoint in output.rglob("*.pt"):
                checkpoint.unlink()  # large, and of no more use
