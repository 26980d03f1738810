"""Named objects of one image with masks: the one record that consumers of a detector take.

Masks are kept run-length encoded; full-size arrays exist only while somebody looks at them.
Shape letters: N detections, H W image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from sharpmask.detection.roi import nms_by_class
from sharpmask.errors import ConfigError
from sharpmask.indexing import Key, places
from sharpmask.proposals.rle import Rle


@dataclass(frozen=True, eq=False)
class Detections:
    """N detections of one image, best first.

    `len(d)`, `d[3]`, `d[:10]`, `d[[4, 2]]` and `d[d.scores > 0.5]` work as with arrays; each gives `Detections`.

    Attributes:
        class_ids: (N,) int64, the classes' category ids in the annotations that the detector was trained on.
        names: N names of classes.
        scores: (N,) float32, the probability of the class, descending.
        boxes: (N, 4) float32 xyxy, the detector's boxes, in image pixels; not exactly those of the masks.
        rles: N masks as COCO compressed RLE.
        image_size: (H, W).
        ranks: (N,) int64, from 0: which proposal each has its mask of, the best first.
    """

    class_ids: np.ndarray
    names: list[str]
    scores: np.ndarray
    boxes: np.ndarray
    rles: list[Rle]
    image_size: tuple[int, int]
    ranks: np.ndarray

    def __len__(self) -> int:
        return len(self.rles)

    def __repr__(self) -> str:
        return f"Detections({len(self)} in an image of {self.image_size[1]}x{self.image_size[0]})"

    def __getitem__(self, key: Key) -> "Detections":
        index = places(key, len(self), "detection")
        return replace(
            self,
            class_ids=self.class_ids[index],
            names=[self.names[i] for i in index],
            scores=self.scores[index],
            boxes=self.boxes[index],
            rles=[self.rles[i] for i in index],
            ranks=self.ranks[index],
        )

    @property
    def masks(self) -> np.ndarray:
        """(N, H, W) bool, decoded at each access: N * H * W bytes."""
        masks = np.zeros((len(self), *self.image_size), bool)
        for place, rle in enumerate(self.rles):
            masks[place] = coco_mask.decode(rle)
        return masks

    @property
    def areas(self) -> np.ndarray:
        """(N,) int64, pixels of each mask."""
        return np.array([int(coco_mask.area(rle)) for rle in self.rles], np.int64)

    def filter(
        self,
        *,
        min_score: float | None = None,
        classes: Sequence[str] | None = None,
        min_area: float | None = None,
        max_area: float | None = None,
    ) -> "Detections":
        """Those within the limits, each inclusive: least score, names of classes, pixels of the mask."""
        keep = np.ones(len(self), bool)
        if min_score is not None:
            keep &= self.scores >= min_score
        if classes is not None:
            keep &= np.array([name in classes for name in self.names], bool)
        if min_area is not None:
            keep &= self.areas >= min_area
        if max_area is not None:
            keep &= self.areas <= max_area
        return self[keep]

    def nms(self, iou: float) -> "Detections":
        """Greedy suppression of boxes, each class for itself: from the best on, keep each whose IoU with every kept one
        of its class is at most `iou`.

        Raises:
            ConfigError: `iou` is not within 0 … 1.
        """
        if not 0 <= iou <= 1:
            raise ConfigError(f"NMS threshold {iou:g}: must lie between 0 and 1")
        boxes, scores = torch.from_numpy(self.boxes), torch.from_numpy(self.scores)
        kept = nms_by_class(boxes, scores, torch.from_numpy(self.class_ids), iou)
        return self[np.sort(kept.numpy())]

    def to_coco(self, image_id: int, kind: str = "both") -> list[dict[str, Any]]:
        """Entries of a COCO results list: image_id, category_id, score, and by `kind` "bbox" (xywh), "segm" (the mask
        as RLE) or "both". pycocotools takes the area of the box where a record has one, so masks are measured from
        "segm".
        """
        xywh = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        return [
            {
                "image_id": image_id,
                "category_id": int(class_id),
                **({"bbox": [round(float(v), 2) for v in box]} if kind != "segm" else {}),
                **({"segmentation": rle} if kind != "bbox" else {}),
                "score": float(str(score)),  # the shortest text that gives the same float32 again
            }
            for class_id, box, rle, score in zip(self.class_ids, xywh, self.rles, self.scores, strict=True)
        ]
