"""From a detector, a proposal model and an image to named objects with masks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sharpmask.detection.classes import DetectorClass
from sharpmask.detection.infer import ScoredBoxes, Selected, score_boxes, select
from sharpmask.detection.networks import FastRCNN, MultiPathNet
from sharpmask.detection.remask import refine_masks
from sharpmask.detection.result import Detections
from sharpmask.detection.roi import box_iou
from sharpmask.detection.store import DEFAULT_DETECTOR, load_detector
from sharpmask.errors import ConfigError
from sharpmask.images import ImageSource, read_image
from sharpmask.proposals.proposer import Proposer, pick_device
from sharpmask.proposals.result import Proposals
from sharpmask.proposals.rle import Rle


class Detector:
    """Finds and names the objects in images: `Detector.load().detect("photo.jpg")`.

    Args:
        network: a Fast R-CNN or MultiPathNet, which is moved to the device and set to evaluation mode.
        classes: its classes.
        proposer: finds the proposals; its `top` is their number.
        min_score: least probability of a class.
        nms: of two boxes of a class that overlap by more than this the worse is dropped.
        vote: boxes of a class that overlap by at least this are averaged, see `infer.select`; None: each stays as it
            is, as in Fast R-CNN.
        top: detections of an image at most.
        refine: compute each mask anew for the detector's box, with the proposer's network; otherwise it is that of the
            proposal whose box comes nearest to the detector's.
        device: "cpu", "cuda", …; None: the proposer's.

    Raises:
        ConfigError: a value outside its range.
    """

    def __init__(
        self,
        network: FastRCNN | MultiPathNet,
        classes: Sequence[DetectorClass],
        proposer: Proposer,
        *,
        min_score: float = 0.05,
        nms: float = 0.3,
        vote: float | None = 0.5,
        top: int = 100,
        refine: bool = False,
        device: str | torch.device | None = None,
    ) -> None:
        if not 0 <= min_score <= 1 or not 0 <= nms <= 1:
            raise ConfigError(f"min_score {min_score:g}, nms {nms:g}: both must lie between 0 and 1")
        if vote is not None and not 0 < vote <= 1:
            raise ConfigError(f"vote {vote:g}: must lie above 0 and not above 1")
        if top < 1:
            raise ConfigError(f"top {top}: must be at least 1")
        self.device = proposer.device if device is None else pick_device(device)
        self.network, self.classes, self.proposer = network.to(self.device).eval(), list(classes), proposer
        self.min_score, self.nms, self.vote, self.top, self.refine = min_score, nms, vote, top, refine

    @classmethod
    def load(
        cls,
        detector: str | Path | None = None,
        *,
        model: str | Path | None = None,
        proposals: int = 100,
        zoom: int = 0,
        scales: Sequence[float] | None = None,
        device: str | None = None,
        min_score: float = 0.05,
        nms: float = 0.3,
        vote: float | None = 0.5,
        top: int = 100,
        refine: bool = False,
    ) -> "Detector":
        """A detector from its file, or a bundled one.

        Args:
            detector: bundled detector or file made by `sharpmask train-detector`; None: the default detector.
            model: bundled proposal model or file; None: the default model.
            proposals: how many are looked at in an image.
            zoom, scales: of the proposer.
            device, min_score, nms, vote, top, refine: see the class.

        Raises:
            SharpMaskError: a file that cannot be used, or a value outside its range.
        """
        from sharpmask.checkpoints import DEFAULT_MODEL, load_network
        from sharpmask.runtimes import with_runtime

        network, classes = load_detector(detector or DEFAULT_DETECTOR)
        # Masks are refined by the network itself, see remask.py.
        masks = with_runtime(load_network(model or DEFAULT_MODEL), "eager" if refine else None, device)
        proposer = Proposer(masks, top=proposals, zoom=zoom, scales=scales, device=device)
        return cls(network, classes, proposer, min_score=min_score, nms=nms, vote=vote, top=top, refine=refine)

    def detect(self, image: ImageSource) -> Detections:
        """The named objects of an image, a path, PIL image or array; best first.

        Raises:
            ImageError: the image cannot be read or is too large.
        """
        pixels = read_image(image, max_pixels=self.proposer.max_pixels)
        return self.detect_proposals(pixels, self.proposer.propose(pixels))

    def detect_proposals(self, pixels: np.ndarray, proposals: Proposals) -> Detections:
        """The named objects among proposals of an image (H, W, 3) uint8."""
        return self.choose(pixels, proposals, self.score(pixels, proposals))

    def score(self, pixels: np.ndarray, proposals: Proposals) -> ScoredBoxes:
        """Classes and corrected boxes of all proposals."""
        return score_boxes(self.network, pixels, proposals.boxes, self.device)

    def choose(
        self, pixels: np.ndarray, proposals: Proposals, scored: ScoredBoxes, count: int | None = None
    ) -> Detections:
        """Detections of scored proposals, of the first `count` of them; the AP over the number of proposals needs the
        scores only once.
        """
        found = select(scored, min_score=self.min_score, nms=self.nms, vote=self.vote, top=self.top, proposals=count)
        proposed = torch.from_numpy(np.asarray(proposals.boxes[:count], np.float32))
        # Its own proposal is often not the one that fits a corrected box best.
        nearest = found.proposals
        if len(found.boxes):
            overlaps = box_iou(found.boxes, proposed).max(dim=1)
            nearest = torch.where(overlaps.values > 0, overlaps.indices, nearest)
        rles = [proposals.rles[place] for place in nearest.tolist()]
        if self.refine:
            rles = self._refined(pixels, found, rles)
        labels = found.labels.tolist()
        return Detections(
            class_ids=np.array([self.classes[label - 1].id for label in labels], np.int64),
            names=[self.classes[label - 1].name for label in labels],
            scores=found.scores.float().numpy(),
            boxes=found.boxes.float().numpy(),
            rles=rles,
            image_size=proposals.image_size,
            ranks=nearest.numpy(),
        )

    def _refined(self, pixels: np.ndarray, found: Selected, rles: list[Rle]) -> list[Rle]:
        """Masks for the corrected boxes; the proposal's stays where the new one is empty."""
        network = self.proposer.network
        anew = refine_masks(network, pixels, found.boxes.numpy(), self.proposer.threshold, self.proposer.device)
        return [old if new is None else new for old, new in zip(rles, anew, strict=True)]
