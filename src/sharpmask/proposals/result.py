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

from sharpmask.errors import ConfigError, MissingExtraError
from sharpmask.indexing import Key, places
from sharpmask.proposals.overlaps import Overlaps, check_containment, greedy
from sharpmask.proposals.ranking import (
    ABOVE,
    STABILITY_WEIGHT,
    check_ranking,
    linear,
    overlapping_pairs,
    soft_order,
    with_stability,
)
from sharpmask.proposals.rle import Rle, encode_runs, encode_windows
from sharpmask.proposals.runs import border_shares, label_runs, paint_labels

# pycocotools decodes N full-size masks at a time.
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Proposals:
    """N proposals of one image, best first.

    `len(p)`, `p[3]`, `p[:10]`, `p[[4, 2]]` and `p[p.areas > 500]` work as with arrays; each gives `Proposals`.

    Attributes:
        scores: (N,) float32, the network's probability that the window holds an object, descending; after `ranked`
            (the default of `Proposer`) the same numbers dealt out in its order; after `soft_nms` lowered for masks that
            resemble a better one.
        boxes: (N,4) float32 xyxy, the smallest box around each mask, maximum exclusive, in image pixels.
        rles: N masks as COCO compressed RLE, `{"size": [H, W], "counts": str}`.
        windows: (N,4) float32 xyxy, the window each mask was found in; it may reach beyond the image.
        scales: (N,) float32, the scale of that window as exponent of two.
        image_size: (H, W).
        areas: (N,) int64, pixels of each mask.
        stability: (N,) float32, or None when it was not asked for: IoU of the two masks that a higher and a lower
            threshold give (see `Proposer`); near 1 for masks with a sharp edge.
        track_ids: (N,) int64, or None: the track of each mask through the frames of a video (see `tracking`).
    """

    scores: np.ndarray
    boxes: np.ndarray
    rles: list[Rle]
    windows: np.ndarray
    scales: np.ndarray
    image_size: tuple[int, int]
    areas: np.ndarray
    stability: np.ndarray | None = None
    track_ids: np.ndarray | None = None

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

    def __getitem__(self, key: Key) -> "Proposals":
        index = places(key, len(self), "proposal")
        return replace(
            self,
            scores=self.scores[index],
            boxes=self.boxes[index],
            rles=[self.rles[i] for i in index],
            windows=self.windows[index],
            scales=self.scales[index],
            areas=self.areas[index],
            stability=None if self.stability is None else self.stability[index],
            track_ids=None if self.track_ids is None else self.track_ids[index],
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
        self,
        *,
        min_score: float | None = None,
        min_area: float | None = None,
        max_area: float | None = None,
        max_aspect: float | None = None,
        max_border: float | None = None,
        min_stability: float | None = None,
    ) -> "Proposals":
        """Those within the limits, each inclusive.

        Args:
            min_score: probability.
            min_area, max_area: image pixels.
            max_aspect: longer by shorter side of the mask's box (see `aspects`).
            max_border: share of the outline on the image's border (see `border_shares`).
            min_stability: see `stability`.

        Raises:
            ConfigError: `min_stability` is given, but the stability was not computed.
        """
        keep = np.ones(len(self), bool)
        if min_score is not None:
            keep &= self.scores >= min_score
        if min_area is not None:
            keep &= self.areas >= min_area
        if max_area is not None:
            keep &= self.areas <= max_area
        if max_aspect is not None:
            keep &= self.aspects <= max_aspect
        if min_stability is not None:
            if self.stability is None:
                raise ConfigError("these proposals have no stability: give the Proposer a stability_offset, such as 1")
            keep &= self.stability >= min_stability
        if max_border is not None:
            touching = np.flatnonzero(keep)
            keep[touching] = border_shares([self.rles[i] for i in touching]) <= max_border
        return self[keep]

    @property
    def aspects(self) -> np.ndarray:
        """(N,) float32: longer by shorter side of each mask's box, at least 1; NaN for an empty mask."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        with np.errstate(invalid="ignore"):
            return sides.max(axis=1, initial=0) / sides.min(axis=1, initial=np.inf)

    @property
    def border_shares(self) -> np.ndarray:
        """(N,) float64: share of each mask's outline, in sides of pixels, that lies on the image's border; computed
        at each access."""
        return border_shares(self.rles)

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
        return greedy(len(self), Overlaps(self.rles, self.boxes, self.areas).doubles(iou))

    def soft_nms(self, above: float = ABOVE, stability_weight: float = STABILITY_WEIGHT) -> "Proposals":
        """The same masks in an order in which near-copies come late: from the best on, the score of every mask whose
        IoU with a better one is greater than `above` is multiplied by 1 - IoU (Bodla et al., ICCV 2017).

        None is dropped. `scores` become the lowered ones, so that they still descend.

        Args:
            above: an IoU greater than 0.
            stability_weight: where there is a `stability`, the score's odds are first multiplied by it to this power,
                so that masks with a sharp edge come before blurred ones; 0: not.

        Raises:
            ConfigError: `above` is not within 0…1, or is 0; or the weight is negative.
        """
        if not 0 < above <= 1:
            raise ConfigError(f"soft NMS above {above:g}: must be greater than 0 and at most 1")
        if not stability_weight >= 0:
            raise ConfigError(f"stability weight {stability_weight:g}: must not be negative")
        scores = self.scores.astype(np.float64)
        if self.stability is not None and stability_weight:
            scores = with_stability(scores, self.stability, stability_weight)
        pairs = overlapping_pairs(len(self), Overlaps(self.rles, self.boxes, self.areas).ious, above)
        places, scores = soft_order(scores, pairs, linear(above))
        return replace(self[places], scores=scores.astype(np.float32))

    def ranked(self, ranking: str) -> "Proposals":
        """In the order "paper" (as they are) or "soft" (see `soft_nms`); ConfigError for another name.

        Lowered again and again, scores would come near zero after a few masks. So those of these proposals, as many and
        as high as they are, are dealt out in the new order: a limit on the score keeps as many masks in either.
        """
        check_ranking(ranking)
        if ranking == "paper":
            return self
        return replace(self.soft_nms(), scores=np.sort(self.scores)[::-1])

    def containment_nms(self, drop: str = "parts", threshold: float = 0.9) -> "Proposals":
        """Greedy suppression of nested masks: of two whose intersection is more than `threshold` of the smaller one's
        area, the worse is dropped, if it is of the kind to drop.

        Args:
            drop: "parts" drops masks that lie within a better one and keeps what holds a better one; "wholes" drops
                masks that hold a better one and keeps parts of a better one; "both" drops either. Of two masks of one
                area the worse counts as both.
            threshold: share of the smaller area, 0…1.

        Raises:
            ConfigError: another `drop`, or a threshold out of range.
        """
        check_containment(drop, threshold)
        return self[greedy(len(self), Overlaps(self.rles, self.boxes, self.areas).nested(drop, threshold))]

    def label_map(self) -> np.ndarray:
        """(H,W) int32: for each pixel 1 + the place of the best mask that holds it, 0 where none does."""
        return paint_labels(self.rles, self.image_size)

    def partition(self) -> "Proposals":
        """The same masks cut so that no pixel belongs to two: each pixel stays with its best mask.

        Masks of which nothing is left are dropped. Scores, windows and stability stay those of the whole masks.
        """
        masks, starts, ends = label_runs(self.label_map())
        encoded = encode_runs(masks, starts, ends, len(self), self.image_size)
        cut = replace(self, boxes=encoded.boxes, rles=encoded.rles, areas=encoded.areas)
        return cut[cut.areas > 0]

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """Entries of a COCO results list: image_id, category_id, segmentation (RLE), bbox (xywh), score, and track_id
        where there are tracks."""
        xywh = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        tracks = [{}] * len(self) if self.track_ids is None else [{"track_id": i} for i in self.track_ids.tolist()]
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "segmentation": rle,
                "bbox": box,
                "score": float(str(score)),  # the shortest text that gives the same float32 again
                **track,
            }
            for rle, box, score, track in zip(self.rles, xywh.tolist(), self.scores, tracks, strict=True)
        ]

    def to_supervision(self) -> Any:
        """A `supervision.Detections` with xyxy, mask, confidence and class_id 0; `data` holds "rank" (from 1), "area",
        and "stability" where there is one.

        It holds the masks as an array (N,H,W): take a slice of many or large ones first.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise MissingExtraError("supervision", "supervision", "Proposals.to_supervision()") from error
        data: dict[str, Any] = {"rank": np.arange(1, len(self) + 1), "area": self.areas.copy()}
        if self.stability is not None:
            data["stability"] = self.stability.copy()
        return Detections(
            xyxy=self.boxes.copy(),
            mask=self.masks,
            confidence=self.scores.copy(),
            class_id=np.zeros(len(self), int),
            tracker_id=None if self.track_ids is None else self.track_ids.copy(),
            data=data,
        )
