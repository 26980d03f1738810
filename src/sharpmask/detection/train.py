"""Training a detector: proposals once, then the loop."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sharpmask.data.check import assert_photos
from sharpmask.data.coco import CocoDataset, read_coco
from sharpmask.data.photos import PhotoCache
from sharpmask.detection.boxes import encode_boxes
from sharpmask.detection.classes import DetectorClass, choose_classes, describe_classes
from sharpmask.detection.config import DetectorConfig
from sharpmask.detection.examples import BoxExamples, Example
from sharpmask.detection.features import FeatureStore
from sharpmask.detection.losses import box_loss_sum, class_loss_sum
from sharpmask.detection.networks import FastRCNN, MultiPathNet, build_detector, take_weights
from sharpmask.detection.proposal_boxes import ProposalBoxes, compute_proposals, read_proposals
from sharpmask.detection.sampling import image_truths
from sharpmask.detection.specs import get_detector_spec
from sharpmask.detection.store import load_detector, load_detector_trunk, save_detector
from sharpmask.detection.task import BoxTask
from sharpmask.detection.validation import Validation, validation_part
from sharpmask.errors import ConfigError, DataError, ModelError
from sharpmask.networks.specs import SPECS
from sharpmask.training.checkpoint import open_run
from sharpmask.training.config import RANDOM_TRUNK
from sharpmask.training.distributed import World, from_main, in_world, was_restarted
from sharpmask.training.logs import RunLog
from sharpmask.training.loop import run_loop

RESULT = "detector.safetensors"


def train_detector(
    config: DetectorConfig,
    *,
    resume: bool = False,
    say: Callable[[str], None] | None = None,
    store: FeatureStore | None = None,
) -> Path:
    """Train a detector. Returns the path of the result, `output`/detector.safetensors.

    Besides it `output` holds the checkpoint to resume from, the best validated weights, log.jsonl, tensorboard/ and the
    proposals that were computed.

    Args:
        config: the run.
        resume: go on from the checkpoint in `output` if there is one; otherwise it is an error, so that no run is lost.
        say: told which classes are learnt; None: printed on standard error.
        store: features of the same photos by the same frozen trunk, which several runs share; None: the run's own.

    Raises:
        SharpMaskError: settings, data or weights that cannot be used; nothing has been trained then.
    """
    if config.trunk_factor == 0 and config.origin is None:
        raise ConfigError(
            "a frozen trunk (trunk_factor=0) needs weights: trunk_weights=FILE or NAME, or start_from=DETECTOR"
        )
    if config.threads:
        torch.set_num_threads(config.threads)
    output = Path(config.output)
    dataset = read_coco(config.annotations)
    classes = choose_classes(dataset, names=config.classes, min_examples=config.min_examples)
    get_detector_spec(config.detector)
    assert_photos(dataset, config.images)
    with in_world(config.device) as (device, world):
        if world.size > 1 and config.proposals is None:
            raise ConfigError(
                "several processes need proposals=FILE, COCO results that all of them read, as `sharpmask propose` "
                "writes them; or train with one process"
            )
        state = from_main(lambda: open_run(output, config, resume=resume or was_restarted()), world)
        if world.is_main:
            if config.origin is None:
                print(RANDOM_TRUNK, file=sys.stderr)
            (say or (lambda text: print(text, file=sys.stderr)))(describe_classes(classes, dataset))
        task = DetectorTask(config, dataset, classes, device, world, store)
        run_loop(task, config, output, world, state)
        result = output / RESULT
        if world.is_main:
            task.save(result, torch.float16)
        return result


class DetectorTask(BoxTask[FastRCNN | MultiPathNet]):
    """A detector that is learnt from proposals."""

    name = "detector"
    examples: BoxExamples

    def __init__(
        self,
        config: DetectorConfig,
        dataset: CocoDataset,
        classes: Sequence[DetectorClass],
        device: torch.device,
        world: World,
        store: FeatureStore | None = None,
    ) -> None:
        super().__init__(config, device, world)
        self.dataset, self.classes = dataset, classes
        torch.manual_seed(config.seed)
        self.network = initial_detector(config, classes).to(device)
        self.frozen = config.trunk_factor == 0
        limit = int(config.cache_gigabytes * 2**30)
        photos = PhotoCache(dataset, config.images, 0 if self.frozen else limit)
        self.examples = BoxExamples(
            image_truths(dataset, classes, complete_classes=config.complete_classes),
            find_proposals(config, dataset, config.images, config.proposals, "train"),
            photos=photos,
            pixels=not self.frozen,
            rois=config.rois,
            foreground=config.foreground,
            background_from=config.background_from,
            flip=config.flip,
            zooms=config.zooms,
            jitter=config.jitter,
            repeat_below=config.repeat_below,
            seed=config.seed,
        )
        self._set_box_statistics()
        if config.workers and not self.frozen:
            photos.preload(sorted(self.examples.boxes))  # once, before the workers fork and share it
        self.store = store or FeatureStore(self.network, dataset, config.images, limit, device)
        self.validation = None
        if config.val_annotations and config.val_images and world.is_main:
            truth = validation_part(read_coco(config.val_annotations), config.val_images, config.validation_photos)
            boxes = find_proposals(config, truth, config.val_images, config.val_proposals, "val")
            self.validation = Validation(truth, config.val_images, boxes, classes)

    def _set_box_statistics(self) -> None:
        """Mean and deviation of the box targets of all boxes of objects."""
        boxes, targets = self.examples.foreground_pairs()
        if not len(boxes):
            raise DataError(f"{self.dataset.path}: no box to learn from; are the classes annotated in its images?")
        network = self.network
        numbers = encode_boxes(boxes.to(self.device), targets.to(self.device))
        network.set_box_statistics(numbers.mean(dim=0), numbers.std(dim=0, correction=0).clamp(min=1e-2))

    def losses(self, examples: Sequence[Example]) -> tuple[dict[str, Tensor], float]:
        network, class_sums, box_sums, count = self.network, [], [], 0
        for example in examples:
            features, scale = self.features(example)
            boxes = example.boxes.to(self.device)
            labels, ious, targets, known = (
                part.to(self.device)
                for part in (
                    example.assigned.labels, example.assigned.ious, example.assigned.targets, example.assigned.known
                )
            )  # fmt: skip
            output = network(features, boxes, scale)
            class_sums.append(class_loss_sum(output, labels, ious, known, network.spec.thresholds))
            encoded = network.encode(boxes, torch.where(labels[:, None] > 0, targets, boxes))
            box_sums.append(self.config.box_weight * box_loss_sum(output.deltas, labels, encoded))
            count += len(boxes)
        sums = {"class_loss": torch.stack(class_sums).sum(), "box_loss": torch.stack(box_sums).sum()}
        return sums, float(count)

    def validate(self, step: int, log: RunLog) -> tuple[float, dict[str, float]] | None:
        """The AP of boxes, and other figures."""
        if self.validation is None:
            return None
        figures = self.validation.scalars(self.network, self.device)
        return figures["box_ap"], figures

    def save(self, path: Path, dtype: torch.dtype) -> None:
        source = self.config.trunk_weights
        bundled = source in SPECS and SPECS[source].weights is not None
        trunk_of = source if self.frozen and bundled and self.config.start_from is None else None
        save_detector(self.network, self.classes, path, trunk_of=trunk_of, dtype=dtype)

    def load(self, path: Path) -> dict[str, Tensor]:
        return load_detector(path)[0].state_dict()


def find_proposals(
    config: DetectorConfig, dataset: CocoDataset, image_dir: str, given: str | None, part: str
) -> ProposalBoxes:
    """The proposals of a part of the data: from the file that is given, or computed and kept."""
    if given is not None:
        return read_proposals(given, dataset, count=config.proposal_count)
    cache = Path(config.output) / f"{part}-proposals.jsonl"
    if part == "train" and config.proposal_cache:
        cache = Path(config.proposal_cache)
    return compute_proposals(
        dataset,
        image_dir,
        model=config.proposal_model,
        count=config.proposal_count,
        cache=cache,
        device=config.device,
    )


def initial_detector(config: DetectorConfig, classes: Sequence[DetectorClass]) -> FastRCNN | MultiPathNet:
    """The network a run starts with. Of another detector it takes what fits, and the classes that both know.

    Raises:
        ModelError: weights that do not fit.
    """
    spec = get_detector_spec(config.detector).of_side(config.short_side)
    network = build_detector(spec, len(classes))
    if config.start_from is not None:
        started, known = load_detector(config.start_from)
        if (started.spec.trunk, started.spec.stride_on) != (spec.trunk, spec.stride_on):
            raise ModelError(f"start_from={config.start_from} has another trunk than '{config.detector}'")
        places = {entry.name: place for place, entry in enumerate(known)}
        common = [(place, places[entry.name]) for place, entry in enumerate(classes) if entry.name in places]
        take_weights(network, started, common)
    elif config.trunk_weights is not None:
        load_detector_trunk(network, config.trunk_weights)
    return network
