"""Ranked object masks of one image: the one record that every consumer takes.

Masks are kept run-length encoded; full-size arrays exist only while somebody looks at them.
Shape letters: N proposals, H W image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from sharpmask.errors import ConfigError
from sharpmask.proposals.rle import Rle, encode_windows

# pycocotools sums areas in 8 bits from 256 masks on with some NumPy versions, and decodes N full-size masks at a time.
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Proposals:
    """N proposals of one image, best first.

    `len(p)`, `p[3]`, `p[:10]`, `p[[4, 2]]` and `p[p.areas > 500]` work as with arrays; each gives `Proposals`.

    Attributes:
        scores: (N,) float32, the network's probability that the window holds an object, descending.
        boxes: (N,4) float32 xyxy, the smallest box around each mask, maximum exclusive, in image pixels.
        rles: N masks as COCO compressed RLE, `{"size": [H, W], "counts": str}`.
        windows: (N,4) float32 xyxy, the window each mask was found in; it may reach beyond the image.
        scales: (N,) float32, the scale of that window as exponent of two.
        image_size: (H, W).
        areas: (N,) int64, pixels of each mask.
    """

    scores: np.ndarray
    boxes: np.ndarray
    rles: list[Rle]
    windows: np.ndarray
    scales: np.ndarray
    image_size: tuple[int, int]
    areas: np.ndarray

    @classmethod
    def from_masks(cls, masks: np.ndarray, scores: np.ndarray | Sequence[float] | None = None) -> "Proposals":
        """Proposals from full-size masks (N,H,W), for example of annotations or of another method.

        `scores` (N,) default to 1; the order becomes that of descending scores. Windows are the boxes, scales NaN.
        """
        masks = np.asarray(masks, bool)
        if masks.ndim != 3:
            raise ValueError(f"masks must have the shape (N,H,W), not {masks.shape}")
        count, height, width = masks.shape
        values = np.ones(count, np.float32) if scores is None else np.asarray(scores, np.float32)
        if values.shape != (count,):
            raise ValueError(f"{count} masks need as many scores, not {values.shape}")
        origin = np.zeros(count, np.int64)
        encoded = encode_windows(
            torch.from_numpy(np.ascontiguousarray(masks.transpose(0, 2, 1))), origin, origin, (height, width)
        )
        order = np.argsort(-values, kind="stable")
        return cls(
            scores=values[order],
            boxes=encoded.boxes[order],
            rles=[encoded.rles[i] for i in order],
            windows=encoded.boxes[order],
            scales=np.full(count, np.nan, np.float32),
            image_size=(height, width),
            areas=encoded.areas[order],
        )

    def __len__(self) -> int:
        return len(self.rles)

    def __repr__(self) -> str:
        return f"Proposals({len(self)} of an image of {self.image_size[1]}x{self.image_size[0]})"

    def __getitem__(self, key: int | slice | Sequence[int] | Sequence[bool] | np.ndarray) -> "Proposals":
        if isinstance(key, (int, np.integer)):
            if not -len(self) <= key < len(self):
                raise IndexError(f"proposal {key} of {len(self)}")
            key = [int(key)]
        elif isinstance(key, (list, tuple)) and not key:
            key = slice(0, 0)
        index = np.arange(len(self))[key]
        return replace(
            self,
            scores=self.scores[index],
            boxes=self.boxes[index],
            rles=[self.rles[i] for i in index],
            windows=self.windows[index],
            scales=self.scales[index],
            areas=self.areas[index],
        )

    @property
    def masks(self) -> np.ndarray:
        """(N,H,W) bool, decoded at each access: N * H * W bytes, so take a slice of many or large ones first."""
        masks = np.zeros((len(self), *self.image_size), bool)
        for begin in range(0, len(self), _BATCH):
            decoded = coco_mask.decode(self.rles[begin : begin + _BATCH])  # (H, W, n)
            masks[begin : begin + _BATCH] = decoded.transpose(2, 0, 1)
        return masks

    def filter(
        self, *, min_score: float | None = None, min_area: float | None = None, max_area: float | None = None
    ) -> "Proposals":
        """Those within the limits, each inclusive; scores are probabilities, areas are in image pixels."""
        keep = np.ones(len(self), bool)
        if min_score is not None:
            keep &= self.scores >= min_score
        if min_area is not None:
            keep &= self.areas >= min_area
        if max_area is not None:
            keep &= self.areas <= max_area
        return self[keep]

    def nms(self, iou: float) -> "Proposals":
        """Greedy suppression: from the best on, keep each mask whose IoU with every kept mask is at most `iou`.

        The paper and the released program apply none. Equal scores count in their present order.

        Raises:
            ConfigError: `iou` is not within 0…1.
        """
        return self[self.nms_ranks(iou)]

    def nms_ranks(self, iou: float) -> list[int]:
        """The places, ascending, of the masks that `nms` keeps."""
        if not 0 <= iou <= 1:
            raise ConfigError(f"NMS threshold {iou:g}: must lie between 0 and 1")
        kept: list[int] = []
        for begin in range(0, len(self), _BATCH):
            block = np.arange(begin, min(begin + _BATCH, len(self)))
            block = block[~self._overlaps(block, np.array(kept, np.int64), iou).any(axis=1)]
            within = self._overlaps(block, block, iou)
            alive = np.ones(len(block), bool)
            for i in range(len(block)):
                if alive[i]:
                    kept.append(int(block[i]))
                    alive[i + 1 :] &= ~within[i, i + 1 :]
        return kept

    def _overlaps(self, first: np.ndarray, second: np.ndarray, iou: float) -> np.ndarray:
        """(len(first), len(second)) bool: mask IoU above `iou`, computed only where boxes and areas leave it open."""
        above = np.zeros((len(first), len(second)), bool)
        if above.size == 0:
            return above
        boxes = self.boxes.astype(np.float64)
        a, b = boxes[first][:, None], boxes[second][None]
        sides = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(min=0)
        area_a, area_b = self.areas[first][:, None], self.areas[second][None]
        most = np.minimum(sides[..., 0] * sides[..., 1], np.minimum(area_a, area_b))  # of the masks' intersection
        possible = most > iou * (area_a + area_b - most)
        rows, cols = np.flatnonzero(possible.any(axis=1)), np.flatnonzero(possible.any(axis=0))
        if rows.size == 0:
            return above
        masks_a, masks_b = [self.rles[i] for i in first[rows]], [self.rles[i] for i in second[cols]]
        exact = coco_mask.iou(masks_a, masks_b, [0] * cols.size)
        above[np.ix_(rows, cols)] = exact > iou
        return above

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """Entries of a COCO results list: image_id, category_id, segmentation (RLE), bbox (xywh), score."""
        xywh = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "segmentation": rle,
                "bbox": box,
                "score": float(str(score)),  # the shortest text that gives the same float32 again
            }
            for rle, box, score in zip(self.rles, xywh.tolist(), self.scores, strict=True)
        ]
