"""Where a score example without an object may be taken from.

A negative is a window of an exhaustively annotated image whose centre is far from the centre of every object of a near
scale (DeepMask paper, section 3.3, with the distances of the release). "Far" is measured in x or in y: the forbidden
square is the one of the positives' jitter, three times as large, in pixels of the window's patch.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sharpmask.data.coco import Annotation, CocoDataset, ImageRecord
from sharpmask.data.geometry import CanonicalGeometry, Window
from sharpmask.errors import DataError

TRIES_PER_IMAGE = 32
IMAGES_TRIED = 200


@dataclass(frozen=True)
class ForbiddenPlaces:
    """What negatives of one image have to stay away from. K objects, Q crowd regions; image pixels."""

    width: int
    height: int
    centres: np.ndarray
    """(K, 2) x, y of the boxes' centres"""
    exponents: np.ndarray
    """(K,) the objects' canonical scales, log2 of patch pixels per image pixel"""
    crowds: np.ndarray
    """(Q, 4) xyxy boxes of the crowd regions"""

    @classmethod
    def of(
        cls, record: ImageRecord, annotations: tuple[Annotation, ...], geometry: CanonicalGeometry
    ) -> "ForbiddenPlaces":
        boxes = np.array([a.bbox for a in annotations if not a.iscrowd], dtype=np.float64).reshape(-1, 4)
        crowds = np.array([a.bbox for a in annotations if a.iscrowd], dtype=np.float64).reshape(-1, 4)
        # a box without extent still marks a place where something is: it counts as one pixel
        sides = np.maximum(boxes[:, 2:].max(axis=1, initial=0.0), 1.0)
        return cls(
            width=record.width,
            height=record.height,
            centres=boxes[:, :2] + boxes[:, 2:] / 2,
            exponents=np.log2(geometry.object_side / sides),
            crowds=np.concatenate([crowds[:, :2], crowds[:, :2] + crowds[:, 2:]], axis=1),
        )

    def allowed(self, points: np.ndarray, exponents: np.ndarray, geometry: CanonicalGeometry) -> np.ndarray:
        """Which windows, centred at `points` (N, 2) with scales 2^`exponents` (N,), are negatives: bool (N,)."""
        reach = geometry.negative_shift * 2.0**-exponents  # (N,) in image pixels
        distance = np.abs(points[:, None] - self.centres[None]).max(axis=2)  # (N, K)
        near = np.abs(exponents[:, None] - self.exponents[None]) <= geometry.negative_octaves
        bad = (near & (distance < reach[:, None])).any(axis=1)
        # the sizes and centres of a crowd's members are unknown: anywhere in its box, at any scale, there may be one
        outside = np.maximum(self.crowds[None, :, :2] - points[:, None], points[:, None] - self.crowds[None, :, 2:])
        return ~(bad | (outside.max(axis=2) < reach[:, None]).any(axis=1))


class NegativeSource:
    """Draws negatives from the exhaustively annotated images of a dataset.

    hard: windows that a model took for objects (see `read_hard_negatives`); those of images that are not in the
        dataset, or that are no negatives by this geometry, are left out. hard_share: of the negatives, how many come
        from these.

    Raises DataError if no image of the dataset allows any negative, or no window of `hard` can be used.
    """

    def __init__(
        self,
        dataset: CocoDataset,
        geometry: CanonicalGeometry,
        hard: list[tuple[int, Window]] | None = None,
        hard_share: float = 0.0,
    ) -> None:
        self.geometry = geometry
        self.hard_share = hard_share
        self.exponents = np.asarray(geometry.negative_exponents, dtype=np.float64)
        self.image_ids = [record.id for record in dataset.image_by_id.values() if record.exhaustive]
        self.places = [
            ForbiddenPlaces.of(dataset.image_by_id[image_id], dataset.annotations_of[image_id], geometry)
            for image_id in self.image_ids
        ]
        if not self.places:
            raise DataError(
                f"{dataset.path}: no image is annotated exhaustively ('exhaustive' is false everywhere), so none may "
                "serve for negatives; train the masks only, or add fully annotated images"
            )
        self._path = dataset.path
        place_of = dict(zip(self.image_ids, self.places, strict=True))
        self.hard = [
            (image_id, window)
            for image_id, window in hard or []
            if image_id in place_of and self.is_negative(place_of[image_id], window)
        ]
        if hard_share and not self.hard:
            raise DataError(
                f"{dataset.path}: none of the {len(hard or [])} hard negatives is a window without object of its "
                "exhaustive photos; was the list made for other annotations?"
            )

    def is_negative(self, place: ForbiddenPlaces, window: Window) -> bool:
        """Whether a window has its centre in the photo and keeps the distance that negatives keep."""
        if not (0 <= window.x < place.width and 0 <= window.y < place.height):
            return False
        point, exponent = np.array([[window.x, window.y]]), np.array([np.log2(window.scale)])
        return bool(place.allowed(point, exponent, self.geometry)[0])

    def draw(self, rng: np.random.Generator) -> tuple[int, Window]:
        """An image id and a window in it that shows no centred object of near scale; uniform in place and in quarter
        octaves; or one of the hard ones.
        """
        # No number is drawn without them: streams of runs that have none stay what they are.
        if self.hard_share and rng.random() < self.hard_share:
            return self.hard[int(rng.integers(len(self.hard)))]
        for _ in range(IMAGES_TRIED):
            number = int(rng.integers(len(self.places)))
            place = self.places[number]
            points = rng.uniform((0, 0), (place.width, place.height), size=(TRIES_PER_IMAGE, 2))
            exponents = rng.choice(self.exponents, size=TRIES_PER_IMAGE)
            allowed = np.flatnonzero(place.allowed(points, exponents, self.geometry))
            if allowed.size:
                x, y = points[allowed[0]].tolist()
                return self.image_ids[number], Window(x, y, float(2.0 ** exponents[allowed[0]]))
        raise DataError(
            f"{self._path}: found no place without an object in {IMAGES_TRIED} images; the images for negatives are "
            "covered by annotations or crowds: add images with free background"
        )


def read_hard_negatives(path: str | Path) -> list[tuple[int, Window]]:
    """A list of windows as `sharpmask mine negatives` writes it: `[{"image_id", "x", "y", "scale", "score"}, …]`, the
    centre in image pixels, the scale in patch pixels for one image pixel.

    Raises:
        DataError: the file is missing or is no such list.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        windows = [
            (int(entry["image_id"]), Window(float(entry["x"]), float(entry["y"]), float(entry["scale"])))
            for entry in content
        ]
        for _, window in windows:
            if not math.isfinite(window.x + window.y + window.scale) or window.scale <= 0:
                raise ValueError(f"{window} is no window")
        return windows
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise DataError(f"{path}: no list of windows ({error}); write one with `sharpmask mine negatives`") from None
