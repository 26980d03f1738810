"""Canonical training examples: example number `index` is a pure function of (seed, index).

There is no state between examples: a resumed run, any number of DataLoader workers and any number of processes see the
same stream. What an example is (object size, jitter, negatives, batches) follows section 3.3 of the DeepMask paper
and the authors' release.

Shape letters: P patch side with context (192), M mask side (160 or 112).
"""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from sharpmask.data.augment import MAX_COVERED, Augmentation, blend, vary_colour
from sharpmask.data.coco import Annotation, CocoDataset, decode_mask
from sharpmask.data.geometry import (
    CanonicalGeometry,
    Window,
    centred_window,
    crop_alpha,
    crop_mask,
    crop_patch,
    jittered_window,
    restore_padding,
)
from sharpmask.data.negatives import NegativeSource
from sharpmask.data.photos import DEFAULT_CACHE_BYTES, PhotoCache, UnreadablePhoto
from sharpmask.errors import ConfigError, DataError

Batches = Literal["alternate", "joint", "mask"]
Balance = Literal["category", "annotation", "area"]

# Where a photo cannot be read.
_ATTEMPTS = 100

# random streams of one seed that must not touch each other
_STEP_STREAM, _TRAIN_STREAM, _EVALUATION_STREAM = 0, 1, 2


def is_usable(annotation: Annotation, dataset: CocoDataset, geometry: CanonicalGeometry) -> bool:
    """Whether an annotation may be a positive: no crowd, large enough, with a segmentation and an image."""
    _, _, width, height = annotation.bbox
    return (
        not annotation.iscrowd
        and annotation.area >= geometry.min_area
        and min(width, height) >= geometry.min_side
        and bool(annotation.segmentation)
        and annotation.image_id in dataset.image_by_id
    )


def _group(annotation: Annotation, balance: Balance) -> int:
    """Which of the groups that are drawn alike an annotation belongs to."""
    if balance == "category":
        return annotation.category_id
    return math.floor(math.log2(annotation.area) / 2) if balance == "area" else 0


def requirements(geometry: CanonicalGeometry) -> str:
    """What `is_usable` asks for, in words."""
    return (
        f"needed: no crowd, area >= {geometry.min_area:g}, box sides >= {geometry.min_side:g} pixels, a segmentation "
        "and a listed image"
    )


class ExampleDataset(Dataset[dict[str, torch.Tensor]]):
    """Examples for training or validating the networks. All arguments are keyword-only.

    dataset: the annotations. image_dir: folder that the file names are relative to.
    geometry: sizes and jitters. seed: non-negative; the same seed gives the same examples.
    length: how many examples there are, normally batch_size * all steps of the run. Needed when training.
    batch_size: examples of one step (over all processes), which decides where batches begin.
    batches: what a batch holds.
        "alternate": a batch is all-mask or all-score, 50/50; a score batch is half positive (the released scheme);
        "joint": every batch is half positives, with mask and label, and half negatives, with a label;
        "mask": positives with masks only (stage 2, or data without exhaustively annotated images).
    mask_side: side of the target, 160 (SharpMask) or 112 (DeepMask); either covers the patch without its context.
    balance: "category" draws a category, then one of its annotations; "annotation" draws from all annotations alike;
        "area" draws an octave of the side of an object (square root of its area), then one of its annotations.
    hard_negatives, hard_share: see `NegativeSource`.
    augmentation: variation beyond the canonical jitter.
    cache_bytes: memory for decoded photos, shared out between workers.
    training: if false, no jitter, flip or augmentation: every usable annotation once, in file order; with "joint" and
        "alternate" each is followed by a negative, that is, even numbers are positives and odd ones negatives.

    An example is a dict: "patch" uint8 (3, P, P) RGB, "mask" uint8 {0, 1} (M, M), "has_mask" float32, "label" float32
    {0, 1}, "has_score" float32, and in training "redrawn" float32 {0, 1}; the default collate function makes
    batches of it. Where has_mask or has_score is 0 the other value is meaningless (mask is then zero).

    In training an example of a photo that cannot be read is drawn anew, from (seed, index, attempt), and the photo is
    reported on stderr.

    Raises DataError where no annotation is usable or, if negatives are needed, no image is annotated exhaustively; and
    when an image turns out to be unreadable, in training more than a hundredth of them and more than ten.
    Raises ConfigError for arguments that make no sense.
    """

    def __init__(
        self,
        *,
        dataset: CocoDataset,
        image_dir: str | Path,
        seed: int,
        length: int | None = None,
        batch_size: int = 32,
        batches: Batches = "alternate",
        mask_side: int = 160,
        geometry: CanonicalGeometry | None = None,
        balance: Balance = "category",
        augmentation: Augmentation | None = None,
        hard_negatives: list[tuple[int, Window]] | None = None,
        hard_share: float = 0.0,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        training: bool = True,
    ) -> None:
        if seed < 0:
            raise ConfigError(f"the seed must not be negative, it is {seed}")
        if batches not in ("alternate", "joint", "mask"):
            raise ConfigError(f"batches must be alternate, joint or mask, not {batches!r}")
        if balance not in ("category", "annotation", "area"):
            raise ConfigError(f"balance must be category, annotation or area, not {balance!r}")
        if batch_size < 1 or (batches != "mask" and batch_size % 2):
            raise ConfigError(f"the batch size must be even (half of a batch is positive), it is {batch_size}")
        if mask_side < 1:
            raise ConfigError(f"mask_side must be positive, it is {mask_side}")
        self.dataset = dataset
        self.seed = seed
        self.batch_size = batch_size
        self.batches = batches
        self.mask_side = mask_side
        self.geometry = geometry or CanonicalGeometry()
        self.balance = balance
        self.augmentation = augmentation or Augmentation()
        self.training = training
        self.photos = PhotoCache(dataset, image_dir, cache_bytes)
        self.positives = tuple(a for a in dataset.annotations if is_usable(a, dataset, self.geometry))
        if not self.positives:
            raise DataError(
                f"{dataset.path}: none of the {len(dataset.annotations)} annotations can be a mask example "
                f"({requirements(self.geometry)})"
            )
        groups: dict[int, list[Annotation]] = {}
        for annotation in self.positives:
            groups.setdefault(_group(annotation, balance), []).append(annotation)
        self._groups = [tuple(groups[key]) for key in sorted(groups)]
        self.negatives = (
            NegativeSource(dataset, self.geometry, hard_negatives, hard_share) if batches != "mask" else None
        )
        if training and length is None:
            raise ConfigError("the length of a training stream must be given")
        every = len(self.positives) * (1 if batches == "mask" else 2)
        self.length = length if length is not None else every
        if not training and self.length > every:
            raise ConfigError(f"there are only {every} examples to validate with, not {self.length}")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        index = int(index)
        if not 0 <= index < self.length:
            raise IndexError(f"example {index} of {self.length}")
        if not self.training:
            return self._validation_example(index)
        for attempt in range(_ATTEMPTS):
            try:
                example = self._training_example(index, attempt)
                return {**example, "redrawn": torch.tensor(float(attempt > 0))}
            except UnreadablePhoto as error:
                self.photos.report_unreadable()
                last = error
        raise DataError(f"{self.dataset.path}: too many photos cannot be read to find an example (the last: {last})")

    def _training_example(self, index: int, attempt: int) -> dict[str, torch.Tensor]:
        """Example `index`, drawn anew where an attempt met a photo that cannot be read."""
        rng = np.random.default_rng((self.seed, _TRAIN_STREAM, index, *([attempt] if attempt else [])))
        is_mask_batch = self.batches == "mask" or (
            self.batches == "alternate" and self.step_kind(index // self.batch_size) == "mask"
        )
        if not is_mask_batch and index % 2:
            image_id, window = self._negatives.draw(rng)
            return self._finish(rng, image_id, window, annotation=None, has_mask=False, has_score=True)
        annotation = self._draw_positive(rng)
        window = centred_window(annotation.bbox, self.geometry)
        window = jittered_window(window, rng, self.geometry, self.augmentation.extra_scale)
        return self._finish(
            rng,
            annotation.image_id,
            window,
            annotation=annotation,
            has_mask=is_mask_batch or self.batches == "joint",
            has_score=not is_mask_batch,
        )

    def step_kind(self, step: int) -> Literal["mask", "score", "joint"]:
        """What the batch of a step holds: all masks, all scores, or both."""
        if self.batches == "joint":
            return "joint"
        if self.batches == "mask":
            return "mask"
        return "mask" if np.random.default_rng((self.seed, _STEP_STREAM, step)).random() < 0.5 else "score"

    def preload(self, *, progress: bool = False) -> int:
        """Decode the photos that examples come from, up to the cache's limit, before workers start; returns how many
        are in memory.
        """
        wanted = dict.fromkeys(annotation.image_id for annotation in self.positives)
        if self.negatives is not None:
            wanted.update(dict.fromkeys(self.negatives.image_ids))
        count = self.photos.preload(list(wanted), progress=progress)
        self.photos.report_unreadable()
        return count

    @property
    def _negatives(self) -> NegativeSource:
        assert self.negatives is not None  # made in __init__ for every kind of batch that asks for it
        return self.negatives

    def _validation_example(self, index: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((self.seed, _EVALUATION_STREAM, index))
        number, is_negative = (index, False) if self.batches == "mask" else (index // 2, bool(index % 2))
        if is_negative:
            image_id, window = self._negatives.draw(rng)
            return self._finish(rng, image_id, window, annotation=None, has_mask=False, has_score=True)
        annotation = self.positives[number]
        window = centred_window(annotation.bbox, self.geometry)
        return self._finish(
            rng, annotation.image_id, window, annotation=annotation, has_mask=True, has_score=self.batches != "mask"
        )

    def _draw_positive(self, rng: np.random.Generator) -> Annotation:
        group = self._groups[int(rng.integers(len(self._groups)))]
        return group[int(rng.integers(len(group)))]

    def _finish(
        self,
        rng: np.random.Generator,
        image_id: int,
        window: Window,
        *,
        annotation: Annotation | None,
        has_mask: bool,
        has_score: bool,
    ) -> dict[str, torch.Tensor]:
        """Cut, augment and pack the example of a window; `annotation` is None for a negative."""
        photo = self.photos[image_id]
        patch = crop_patch(photo, window, self.geometry)
        mask = np.zeros((self.mask_side, self.mask_side), dtype=np.uint8)
        if annotation is not None and has_mask:
            mask = crop_mask(self._full_mask(annotation), window, self.geometry, self.mask_side)
        if self.training:
            before = patch
            if self.augmentation.copy_paste and rng.random() < self.augmentation.copy_paste:
                # negatives too: otherwise a pasted edge would betray a positive
                patch, mask = self._paste(rng, patch, mask)
            if self.augmentation.colour or self.augmentation.grayscale:
                patch = vary_colour(patch, rng, self.augmentation)
            if patch is not before:
                # in a whole image the padding is plain grey as well
                patch = restore_padding(patch, window, self.geometry, photo.shape[:2])
            if rng.random() < self.geometry.flip:
                patch, mask = patch[:, ::-1], mask[:, ::-1]
        return {
            "patch": torch.from_numpy(patch.transpose(2, 0, 1).copy()),
            "mask": torch.from_numpy(mask.copy()),
            "has_mask": torch.tensor(float(has_mask)),
            "label": torch.tensor(float(annotation is not None)),
            "has_score": torch.tensor(float(has_score)),
        }

    def _paste(self, rng: np.random.Generator, patch: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Paste another photo's object off the centre; what it covers of the target is taken out of `mask`.

        Its centre keeps the distance that negatives keep, so that it never is itself the object asked for.
        """
        geometry = self.geometry
        other = self._draw_positive(rng)
        centred = centred_window(other.bbox, geometry)
        scale = centred.scale * 2.0 ** rng.uniform(-1.0, 0.5)
        reach = geometry.negative_shift
        offset = rng.uniform(-geometry.input_size / 2, geometry.input_size / 2, size=2)
        # one axis, drawn at random, is moved out until the centre is far enough
        axis = int(rng.integers(2))
        offset[axis] = np.copysign(rng.uniform(reach, geometry.input_size / 2), offset[axis])
        window = Window(centred.x - offset[0] / scale, centred.y - offset[1] / scale, scale)
        full = self._full_mask(other)
        remaining = mask & (1 - crop_mask(full, window, geometry, self.mask_side))
        if remaining.sum() < (1 - MAX_COVERED) * mask.sum():
            return patch, mask
        pasted = crop_patch(self.photos[other.image_id], window, geometry)
        return blend(patch, pasted, crop_alpha(full, window, geometry.input_size, geometry.input_size)), remaining

    def _full_mask(self, annotation: Annotation) -> np.ndarray:
        record = self.dataset.image_by_id[annotation.image_id]
        try:
            return decode_mask(annotation, record.height, record.width)
        except DataError as error:
            raise DataError(f"{self.dataset.path}: {error}; `sharpmask check` lists all such annotations") from error
