"""A region proposal network (Faster R-CNN, arXiv 1506.01497), to compare proposals with: boxes without masks.

At every cell of the trunk's last features it says of some anchors, boxes of fixed sizes and shapes, whether an object
is there, and corrects their sides. Trained on the same loop, trunk and images as a detector, class-agnostic.

Shape letters: A anchors a cell, h w grid of cells, N = h * w * A anchors, G objects. Boxes are xyxy, in pixels of
the image.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from sharpmask.checkpoints.store import load_state, read_safetensors, write_safetensors
from sharpmask.data.coco import CocoDataset, read_coco
from sharpmask.data.photos import PhotoCache
from sharpmask.detection.boxes import clip_boxes, decode_boxes, encode_boxes
from sharpmask.detection.classes import choose_classes
from sharpmask.detection.config import DetectorConfig
from sharpmask.detection.examples import Example, PhotoRounds, mirrored
from sharpmask.detection.features import FeatureStore
from sharpmask.detection.networks import Scale, TrunkNetwork
from sharpmask.detection.roi import box_areas, box_iou, intersections, nms
from sharpmask.detection.sampling import CROWD, TOUCH, Assigned, ImageTruth, image_truths
from sharpmask.detection.specs import DetectorSpec, get_detector_spec
from sharpmask.detection.store import load_detector_trunk
from sharpmask.detection.task import BoxTask
from sharpmask.errors import DataError, ModelError
from sharpmask.networks.trunk import Features
from sharpmask.proposals.proposer import pick_device
from sharpmask.training.checkpoint import open_run
from sharpmask.training.distributed import World
from sharpmask.training.loop import run_loop

FORMAT = "sharpmask-rpn-1"
# Sides of square anchors in pixels of the rescaled image, and their shapes, height by width.
SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)
RATIOS = (0.5, 1.0, 2.0)
# An anchor is an object from this overlap on, and background below the other.
OBJECT, BACKGROUND = 0.7, 0.3
# Anchors that are drawn from an image, half of them objects at most.
DRAWN = 256
_STRIDE = 16
_NMS, _BEFORE_NMS = 0.7, 2000


class RegionProposalNetwork(TrunkNetwork):
    """Objectness and correction of the anchors of every cell.

    Args:
        spec: trunk and image sizes; all else of it is not looked at.
        hidden: channels of its own 3x3 convolution.
    """

    def __init__(self, spec: DetectorSpec, *, hidden: int = 256) -> None:
        super().__init__(spec)
        anchors = len(SIZES) * len(RATIOS)
        self.conv = nn.Conv2d(self.trunk.channels[-1], hidden, 3, padding=1)
        self.objectness = nn.Conv2d(hidden, anchors, 1)
        self.regressor = nn.Conv2d(hidden, 4 * anchors, 1)
        for layer, std in ((self.conv, 0.01), (self.objectness, 0.01), (self.regressor, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, features: Features) -> tuple[Tensor, Tensor]:
        """Objectness logits (N,) and corrections (N, 4) of the anchors of one image, rows first."""
        x = F.relu(self.conv(features[-1]))
        logits = self.objectness(x)[0].permute(1, 2, 0)  # (h, w, A)
        deltas = self.regressor(x)[0].permute(1, 2, 0)  # (h, w, 4 A)
        return logits.flatten(), deltas.reshape(-1, 4)

    def anchors(self, features: Features, scale: Scale) -> Tensor:
        """(N, 4), in pixels of the image; they may reach beyond it."""
        height, width = features[-1].shape[2:]
        device = features[-1].device
        shapes = [(size * ratio**-0.5, size * ratio**0.5) for size in SIZES for ratio in RATIOS]
        half = torch.tensor(shapes, device=device) / 2  # (A, 2), x and y
        y, x = torch.meshgrid(
            (torch.arange(height, device=device) + 0.5) * _STRIDE,
            (torch.arange(width, device=device) + 0.5) * _STRIDE,
            indexing="ij",
        )
        centres = torch.stack([x, y], dim=2)[:, :, None]  # (h, w, 1, 2)
        boxes = torch.cat([centres - half, centres + half], dim=3).reshape(-1, 4)
        return boxes / torch.tensor(scale.factors, device=device).repeat(2)

    @torch.inference_mode()
    def propose(self, pixels: np.ndarray, *, top: int = 1000) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (M, 4) xyxy float32, best first, and their scores (M,), of an image (H, W, 3) uint8; M <= `top`."""
        device = self.mean.device
        image = torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(2, 0, 1).float() / 255
        features, scale = self.features(image)
        logits, deltas = self(features)
        best = torch.argsort(logits, descending=True, stable=True)[:_BEFORE_NMS]
        boxes = clip_boxes(decode_boxes(self.anchors(features, scale)[best], deltas[best]), scale.size)
        scores = logits[best].sigmoid()
        whole = ((boxes[:, 2:] - boxes[:, :2]) >= 2).all(dim=1)
        boxes, scores = boxes[whole], scores[whole]
        kept = nms(boxes, scores, _NMS)[:top]
        return boxes[kept].cpu().numpy(), scores[kept].cpu().numpy()


def assign_anchors(anchors: Tensor, truth: ImageTruth) -> tuple[Tensor, Tensor]:
    """What anchors (N, 4) are: labels (N,) 1 object, 0 background, -1 ignored, and their objects' boxes (N, 4).

    An anchor is an object where it overlaps one by .7, or overlaps it best of all; background below .3. In images whose
    objects are not all annotated, background has to touch an annotated object: the rest is not known.
    """
    labels = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    boxes = truth.boxes.to(anchors.device)
    if not len(boxes):
        return (labels.zero_() if truth.exhaustive else labels), torch.zeros_like(anchors)
    overlaps = box_iou(anchors, boxes)  # (N, G)
    best, nearest = overlaps.max(dim=1)
    labels[best < BACKGROUND] = 0
    if not truth.exhaustive:
        labels[best < TOUCH] = -1
    if len(truth.crowds):
        share = intersections(anchors, truth.crowds.to(anchors.device)) / box_areas(anchors).clamp(min=1e-6)[:, None]
        labels[(share.amax(dim=1) > CROWD) & (labels == 0)] = -1
    labels[best >= OBJECT] = 1
    of_object = overlaps.amax(dim=0)  # (G,)
    labels[((overlaps >= of_object - 1e-6) & (of_object > 0.1)).any(dim=1) & (best > 0.1)] = 1
    return labels, boxes[nearest]


class _Images(Dataset[Example]):
    """All images that an RPN can learn from; no boxes."""

    def __init__(self, rounds: PhotoRounds, *, flip: bool) -> None:
        self.rounds, self.flip = rounds, flip

    def __getitem__(self, index: int) -> Example:
        image_id, image = self.rounds[index]
        flip = self.flip and bool(np.random.default_rng((self.rounds.seed, 2, index)).random() < 0.5)
        if image is not None and flip:
            image = image.flip(2)
        none = torch.zeros(0)
        return Example(image_id, flip, 1.0, image, none.reshape(0, 4), Assigned(none, none, none, none))


class RpnTask(BoxTask[RegionProposalNetwork]):
    """An RPN that is learnt from all annotated objects, whatever their class."""

    name = "rpn"

    def __init__(
        self, config: DetectorConfig, dataset: CocoDataset, device: torch.device, store: FeatureStore | None = None
    ) -> None:
        super().__init__(config, device, World())
        self.dataset = dataset
        torch.manual_seed(config.seed)
        self.network = RegionProposalNetwork(get_detector_spec(config.detector).of_side(config.short_side))
        if config.trunk_weights is not None:
            load_detector_trunk(self.network, config.trunk_weights)
        self.network.to(device)
        self.truths = image_truths(dataset, choose_classes(dataset))
        usable = [image_id for image_id, truth in sorted(self.truths.items()) if truth.exhaustive or len(truth.boxes)]
        if not usable:
            raise DataError(f"{dataset.path}: no image that an RPN could learn from")
        limit = int(config.cache_gigabytes * 2**30)
        pixels = config.trunk_factor > 0
        photos = PhotoCache(dataset, config.images, limit if pixels else 0)
        self.examples = _Images(PhotoRounds(usable, photos, pixels=pixels, seed=config.seed), flip=config.flip)
        self.store = store or FeatureStore(self.network, dataset, config.images, limit, device)

    def losses(self, examples: Sequence[Example]) -> tuple[dict[str, Tensor], float]:
        scores, boxes, count = [], [], 0
        for example in examples:
            features, scale = self.features(example)
            logits, deltas = self.network(features)
            anchors = self.network.anchors(features, scale)
            truth = self.truths[example.image_id]
            if example.flip:
                width = self.dataset.image_by_id[example.image_id].width
                truth = dataclasses.replace(
                    truth, boxes=mirrored(truth.boxes, width), crowds=mirrored(truth.crowds, width)
                )
            labels, targets = assign_anchors(anchors, truth)
            chosen = draw_anchors(labels)  # from the generator that the loop has seeded for this step
            own = chosen[labels[chosen] == 1]
            scores.append(
                F.binary_cross_entropy_with_logits(logits[chosen].float(), labels[chosen].float(), reduction="sum")
            )
            aims = encode_boxes(anchors[own], targets[own])
            boxes.append(F.smooth_l1_loss(deltas[own].float(), aims, reduction="sum", beta=1 / 9))
            count += len(chosen)
        sums = {"class_loss": torch.stack(scores).sum(), "box_loss": torch.stack(boxes).sum()}
        return sums, float(count)

    def save(self, path: Path, dtype: torch.dtype) -> None:
        save_rpn(self.network, path, dtype=dtype)

    def load(self, path: Path) -> dict[str, Tensor]:
        return load_rpn(path).state_dict()


def draw_anchors(labels: Tensor) -> Tensor:
    """Places of DRAWN anchors, half of them objects at most, the rest background, at random."""
    objects, background = (torch.nonzero(labels == label)[:, 0] for label in (1, 0))
    objects = objects[torch.randperm(len(objects)).to(labels.device)[: DRAWN // 2]]
    background = background[torch.randperm(len(background)).to(labels.device)[: DRAWN - len(objects)]]
    return torch.cat([objects, background])


def train_rpn(config: DetectorConfig, *, resume: bool = False, store: FeatureStore | None = None) -> Path:
    """Train an RPN with the settings of a detector (its trunk, sizes and schedule); returns its file.

    `store`: see `train_detector`.
    """
    device = pick_device(config.device)
    if config.threads:
        torch.set_num_threads(config.threads)
    output = Path(config.output)
    state = open_run(output, config, resume=resume)
    task = RpnTask(config, read_coco(config.annotations), device, store)
    run_loop(task, config, output, World(), state)
    result = output / "rpn.safetensors"
    task.save(result, torch.float16)
    return result


def save_rpn(network: RegionProposalNetwork, path: Path, *, dtype: torch.dtype) -> None:
    """Write weights and architecture, atomically."""
    metadata = {
        "format": FORMAT,
        "spec": json.dumps(dataclasses.asdict(network.spec)),
        "hidden": str(network.conv.out_channels),
    }
    write_safetensors(network.state_dict(), path, metadata=metadata, dtype=dtype)


def load_rpn(path: str | Path) -> RegionProposalNetwork:
    """An RPN in evaluation mode, fp32, on the CPU. Raises ModelError for a file that is none."""
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} is no region proposal network: its header has no format '{FORMAT}'")
    values: dict[str, Any] = json.loads(metadata["spec"])
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    network = RegionProposalNetwork(DetectorSpec(**values), hidden=int(metadata["hidden"]))
    load_state(network, tensors, path)
    return network.eval()
