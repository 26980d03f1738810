"""The examples of detector training: an image, and some of its boxes with what they are.

Example i is a function of the seed and of i alone, so that a resumed run sees what the uninterrupted one would have.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from sharpmask.data.photos import PhotoCache, UnreadablePhoto
from sharpmask.detection.boxes import clip_boxes
from sharpmask.detection.proposal_boxes import ProposalBoxes
from sharpmask.detection.sampling import Assigned, ImageTruth, assign, sample
from sharpmask.errors import DataError

# How far `jittered` goes, in sides and as a factor.
_MOVE, _RESIZE = 0.2, 1.4


@dataclass(frozen=True)
class Example:
    """One image of a batch.

    Attributes:
        image_id: which image.
        flip: it is mirrored, and the boxes with it.
        zoom: the multiple of its size that it is rescaled to; boxes are of the image as it is.
        image: (3, H, W) uint8; None where features are taken from a store.
        boxes: (R, 4) xyxy.
        assigned: what they are.
    """

    image_id: int
    flip: bool
    zoom: float
    image: torch.Tensor | None
    boxes: torch.Tensor
    assigned: Assigned


class PhotoRounds:
    """Images without end, and their pixels where they are wanted: all in a new order in every round. One that cannot be
    read is reported, and the next of the round takes its place, also where only its features are wanted later.

    Args:
        image_ids: the images of a round; one may be in it several times.
        photos: read from here.
        pixels: whether they are wanted.
        seed: of the orders.
    """

    def __init__(self, image_ids: Sequence[int], photos: PhotoCache, *, pixels: bool, seed: int) -> None:
        self.image_ids, self.photos, self.pixels, self.seed = list(image_ids), photos, pixels, seed
        self._sound: set[int] = set()
        self._round: tuple[int, np.ndarray] | None = None

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor | None]:
        """An image's id and its pixels (3, H, W) uint8.

        Raises:
            DataError: too many images cannot be read.
        """
        number, first = divmod(index, len(self.image_ids))
        if self._round is None or self._round[0] != number:
            self._round = (number, np.random.default_rng((self.seed, 1, number)).permutation(len(self.image_ids)))
        for place in np.roll(self._round[1], -first):
            image_id = self.image_ids[place]
            if not self.pixels and image_id in self._sound:
                return image_id, None
            try:
                photo = self.photos[image_id]
            except UnreadablePhoto:
                self.photos.report_unreadable()
                continue
            self._sound.add(image_id)
            return image_id, torch.from_numpy(photo).permute(2, 0, 1) if self.pixels else None
        raise DataError(f"{self.photos.dataset.path}: none of the photos to learn from can be read")


class BoxExamples(Dataset[Example]):
    """Examples without end: all images that give any box to learn from, in a new order in every round.

    Attributes:
        rounds: the images, those of rare classes more than once in a round.

    Args:
        truths: what is annotated in each image.
        proposals: boxes of each image; the annotated ones are added, and `jitter` boxes around each of them.
        photos: of the data set that `truths` are of.
        pixels: whether examples come with them.
        rois, foreground, background_from, flip, zooms, jitter, repeat_below, seed: see `DetectorConfig`.
    """

    def __init__(
        self,
        truths: Mapping[int, ImageTruth],
        proposals: ProposalBoxes,
        *,
        photos: PhotoCache,
        pixels: bool,
        rois: int,
        foreground: float,
        background_from: float,
        flip: bool,
        zooms: Sequence[float] = (1.0,),
        jitter: int = 0,
        repeat_below: float = 0.0,
        seed: int,
    ) -> None:
        records = photos.dataset.image_by_id
        self.sizes = {image_id: (records[image_id].height, records[image_id].width) for image_id in truths}
        self.rois, self.foreground, self.flip, self.zooms, self.seed = rois, foreground, flip, tuple(zooms), seed
        self.boxes: dict[int, torch.Tensor] = {}
        self.assigned: dict[int, Assigned] = {}
        for image_id, truth in truths.items():
            rng = np.random.default_rng((seed, 3, abs(image_id)))
            moved = clip_boxes(jittered(truth.boxes, jitter, rng), self.sizes[image_id])
            boxes = torch.cat([truth.boxes, moved, proposals[image_id]])
            found = assign(boxes, truth, background_from=background_from)
            usable = torch.nonzero(found.labels >= 0)[:, 0]
            if len(usable):
                self.boxes[image_id], self.assigned[image_id] = boxes[usable], found.take(usable)
        usable_ids = sorted(self.boxes)
        often = repeats([truths[key].labels for key in usable_ids], repeat_below)
        self.rounds = PhotoRounds(np.repeat(usable_ids, often).tolist(), photos, pixels=pixels, seed=seed)

    def foreground_pairs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All boxes of objects (N, 4) and the objects' own (N, 4), of which box statistics are made."""
        chosen = {image_id: found.labels > 0 for image_id, found in self.assigned.items()}
        empty = [torch.zeros(0, 4)]
        return (
            torch.cat(empty + [self.boxes[i][own] for i, own in chosen.items()]),
            torch.cat(empty + [self.assigned[i].targets[own] for i, own in chosen.items()]),
        )

    def __getitem__(self, index: int) -> Example:
        image_id, image = self.rounds[index]
        rng = np.random.default_rng((self.seed, 2, index))
        flip = self.flip and bool(rng.random() < 0.5)
        zoom = self.zooms[rng.integers(len(self.zooms))] if len(self.zooms) > 1 else self.zooms[0]
        places = sample(self.assigned[image_id], self.rois, self.foreground, rng)
        boxes, assigned = self.boxes[image_id][places], self.assigned[image_id].take(places)
        if flip:
            width = self.sizes[image_id][1]
            boxes = mirrored(boxes, width)
            assigned = Assigned(assigned.labels, assigned.ious, mirrored(assigned.targets, width), assigned.known)
        if image is not None and flip:
            image = image.flip(2)
        return Example(image_id, flip, zoom, image, boxes, assigned)


def repeats(labels: Sequence[torch.Tensor], below: float) -> np.ndarray:
    """How often each image is seen in a round: sqrt(below / share) of its rarest class, which `share` of the images
    have, rounded, and at least once (repeat factor sampling, arXiv 1908.03195).

    Args:
        labels: of each image, its objects' classes 1 … K; 0 is none.
        below: images whose classes all have at least this share are seen once.
    """
    present = [set(own[own > 0].tolist()) for own in labels]
    images = Counter(label for own in present for label in own)
    rarest = [min((images[label] for label in own), default=len(labels)) for own in present]
    return np.maximum(1, np.rint(np.sqrt(below * len(labels) / np.array(rarest)))).astype(np.int64)


def jittered(boxes: torch.Tensor, count: int, rng: np.random.Generator) -> torch.Tensor:
    """`count` boxes (N * count, 4) around each of N boxes: the centre is moved by up to a fifth of the sides, and each
    side resized by up to a factor of 1.4, so that most overlap their box by half or more."""
    around = boxes.repeat_interleave(count, dim=0)
    sides = around[:, 2:] - around[:, :2]
    drawn = torch.from_numpy(rng.uniform(-1, 1, (len(around), 4)).astype(np.float32))
    centres = (around[:, :2] + around[:, 2:]) / 2 + _MOVE * drawn[:, :2] * sides
    half = sides / 2 * _RESIZE ** drawn[:, 2:]
    return torch.cat([centres - half, centres + half], dim=1)


def mirrored(boxes: torch.Tensor, width: int) -> torch.Tensor:
    """Boxes (N, 4) in the mirrored image."""
    return torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], dim=1)
