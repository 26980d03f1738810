"""Fast R-CNN and MultiPathNet: from trunk features and boxes to class scores and corrected boxes.

Shape letters: B images, R boxes (regions of interest), K classes without the background, T IoU thresholds, C channels,
H W size of the rescaled input, S side of a box's features, F hidden units. Class 0 of the logits is the background.
Inputs are RGB in [0, 1]. Boxes are xyxy, in pixels of the image as it is given, not as it is rescaled.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.detection.boxes import clip_boxes, decode_boxes, encode_boxes, grow_boxes
from sharpmask.detection.roi import roi_align
from sharpmask.detection.specs import SKIPS, DetectorSpec
from sharpmask.networks.trunk import Features, build_c5, build_trunk

# What the L2-normalised features of a level are multiplied by at first: about the size that features have by nature.
_SKIP_SCALE = 10.0
# Channels that are left of the classifier's last stage where its cells are not averaged.
_FEW = 32


class RoiOutput(NamedTuple):
    """What a detector says of R boxes.

    Attributes:
        class_logits: (T, R, K + 1), one classifier for each IoU threshold.
        deltas: (R, K, 4), the correction of the box for each class, normalised (see `FastRCNN.correct`).
    """

    class_logits: Tensor
    deltas: Tensor

    @property
    def class_prob(self) -> Tensor:
        """(R, K + 1): the classifiers' probabilities, averaged."""
        return self.class_logits.float().softmax(dim=2).mean(dim=0)


class Scale(NamedTuple):
    """How an image (H, W) was rescaled: `size` (H, W) of the image, `factors` (horizontal, vertical)."""

    size: tuple[int, int]
    factors: tuple[float, float]


class RegionHead(nn.Module):
    """Two fully connected layers over the pooled features of a region: (R, C, S, S) -> (R, F)."""

    def __init__(self, spec: DetectorSpec, channels: int) -> None:
        super().__init__()
        self.out_features = spec.hidden
        self.fc6 = nn.Linear(channels * spec.pooled_side**2, spec.hidden)
        self.fc7 = nn.Linear(spec.hidden, spec.hidden)
        self.dropout = nn.Dropout(spec.dropout)
        for layer in (self.fc6, self.fc7):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.fc6(pooled.flatten(1))))
        return self.dropout(F.relu(self.fc7(x)))


class C5Head(nn.Module):
    """The classifier's stages after the trunk: their average over the cells, which tells what a region holds, and a
    fully connected layer over few channels of each cell, which tells where in it: (R, C, S, S) -> (R, F).
    """

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.c5 = build_c5(spec.trunk_spec)
        self.few = _joining(self.c5.out_channels, _FEW)
        self.where = nn.Linear(_FEW * (spec.pooled_side // 2) ** 2, spec.hidden)
        nn.init.kaiming_normal_(self.where.weight, nonlinearity="relu")
        nn.init.zeros_(self.where.bias)
        self.out_features = self.c5.out_channels + spec.hidden
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, pooled: Tensor) -> Tensor:
        cells = self.c5(pooled.contiguous(memory_format=torch.channels_last))
        where = F.relu(self.where(F.relu(self.few(cells)).flatten(1)))
        return self.dropout(torch.cat([cells.mean(dim=(2, 3)), where], dim=1))


def _region_head(spec: DetectorSpec, channels: int) -> RegionHead | C5Head:
    return C5Head(spec) if spec.head == "c5" else RegionHead(spec, channels)


class SkipPool(nn.Module):
    """Features of a region from several trunk levels: each L2-normalised over its channels and multiplied by a learnt
    scale, joined, and brought back by a 1x1 convolution to as many channels as the coarsest level has.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.scales = nn.ParameterList(nn.Parameter(torch.full((c, 1, 1), _SKIP_SCALE)) for c in channels)
        self.conv = _joining(sum(channels), channels[-1])

    def forward(self, pooled: Sequence[Tensor]) -> Tensor:
        """Pooled levels (R, C_i, S, S), fine to coarse -> (R, C, S, S)."""
        parts = [F.normalize(level, dim=1) * scale for level, scale in zip(pooled, self.scales, strict=True)]
        return self.conv(torch.cat(parts, dim=1))


class TrunkNetwork(nn.Module):
    """A trunk with the sizes that its images are rescaled to."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.trunk = build_trunk(spec.trunk_spec)
        self.register_buffer("mean", torch.tensor(self.trunk.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(self.trunk.std).view(1, 3, 1, 1), persistent=False)

    @property
    def levels(self) -> int:
        """How many of the trunk's levels are read, counted from the coarsest."""
        return 1

    def features(self, image: Tensor, zoom: float = 1.0) -> tuple[Features, Scale]:
        """Trunk features of one image (3, H, W) in [0, 1] that is rescaled to `zoom` times the spec's size first."""
        size = (image.shape[1], image.shape[2])
        height, width = rescaled_size(size, self.spec, zoom)
        if (height, width) != size:
            resized = F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)
        else:
            resized = image[None]
        features = self.trunk((resized - self.mean) / self.std)
        return features, Scale(size, (width / size[1], height / size[0]))


class _Detector(TrunkNetwork):
    """What both detectors share: classes, and the statistics of box targets."""

    regressor: nn.Linear
    box_mean: Tensor
    box_std: Tensor

    def __init__(self, spec: DetectorSpec, classes: int) -> None:
        super().__init__(spec)
        self.classes = classes
        last = self.trunk.channels[-1]
        self.thin = _joining(last, spec.pooled_channels) if spec.pooled_channels else nn.Identity()
        self.channels = (*self.trunk.channels[:-1], spec.pooled_channels or last)  # of the levels that are pooled
        # Box targets have the mean 0 and the deviation 1 in each of their four numbers; training measures them.
        self.register_buffer("box_mean", torch.zeros(4))
        self.register_buffer("box_std", torch.tensor([0.1, 0.1, 0.2, 0.2]))

    def _thinned(self, features: Features) -> Features:
        """Trunk features with `channels` channels."""
        return (*features[:-1], self.thin(features[-1]))

    @torch.no_grad()
    def set_box_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Another mean (4,) and deviation (4,) of box targets; the boxes that the network says stay the same."""
        weight, bias = (p.view(self.classes, 4, -1) for p in (self.regressor.weight, self.regressor.bias))
        weight.mul_((self.box_std / std)[:, None])
        bias.mul_(self.box_std[:, None]).add_((self.box_mean - mean)[:, None]).div_(std[:, None])
        self.box_mean.copy_(mean)
        self.box_std.copy_(std)

    def encode(self, boxes: Tensor, targets: Tensor) -> Tensor:
        """Normalised regression targets (R, 4) of boxes for their objects."""
        return (encode_boxes(boxes, targets) - self.box_mean) / self.box_std

    def correct(self, boxes: Tensor, deltas: Tensor, size: tuple[int, int]) -> Tensor:
        """Boxes (R, 4) as each class corrects them, within the image of `size` (H, W): (R, K, 4)."""
        return clip_boxes(decode_boxes(boxes[:, None], deltas * self.box_std + self.box_mean), size)

    def _pool(self, level: Tensor, depth: int, boxes: Tensor, scale: Scale) -> Tensor:
        """Features (R, C, S, S) of boxes in one level (1, C, H / stride, W / stride); depth 1 has the stride 16."""
        stride = 2.0 ** (5 - depth)
        factors = boxes.new_tensor([factor / stride for factor in scale.factors])
        index = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return roi_align(level, boxes, index, scale=factors, side=self.spec.pooled_side)


class FastRCNN(_Detector):
    """Fast R-CNN: the last features of a box, two fully connected layers, class scores and a box for each class.

    Args:
        spec: the architecture; its parts of MultiPathNet are not looked at.
        classes: K.
    """

    def __init__(self, spec: DetectorSpec, classes: int) -> None:
        super().__init__(spec, classes)
        self.head = _region_head(spec, self.channels[-1])
        self.classifier = _output(self.head.out_features, classes + 1, 0.01)
        self.regressor = _output(self.head.out_features, 4 * classes, 0.001)

    def forward(self, features: Features, boxes: Tensor, scale: Scale) -> RoiOutput:
        """Boxes (R, 4) of the image that `features` are of."""
        x = self.head(self._pool(self._thinned(features)[-1], 1, boxes, scale))
        return RoiOutput(self.classifier(x)[None], self.regressor(x).unflatten(1, (self.classes, 4)))


class MultiPathNet(_Detector):
    """MultiPathNet: several regions around a box with a head each, features of several levels, several classifiers.

    With one region, without skips and with one threshold it is a Fast R-CNN.

    Args:
        spec: the architecture.
        classes: K.
    """

    def __init__(self, spec: DetectorSpec, classes: int) -> None:
        super().__init__(spec, classes)
        self.depths = [SKIPS.get(region, 1) if spec.skips else 1 for region in spec.regions]
        self.skips = nn.ModuleList(
            SkipPool(self.channels[-depth:]) if spec.skips else nn.Identity() for depth in self.depths
        )
        heads = [_region_head(spec, self.channels[-1]) for _ in spec.regions]
        self.heads = nn.ModuleList(heads)
        joined = sum(head.out_features for head in heads)
        self.classifiers = nn.ModuleList(_output(joined, classes + 1, 0.01) for _ in spec.thresholds)
        self.regressor = _output(heads[0].out_features, 4 * classes, 0.001)

    @property
    def levels(self) -> int:
        return max(self.depths)

    def forward(self, features: Features, boxes: Tensor, scale: Scale) -> RoiOutput:
        """Boxes (R, 4) of the image that `features` are of."""
        features = self._thinned(features)
        described = [
            head(self._region(features, _around(boxes, region, scale), depth, skip, scale))
            for region, depth, skip, head in zip(self.spec.regions, self.depths, self.skips, self.heads, strict=True)
        ]
        x = torch.cat(described, dim=1)  # (R, F * regions)
        logits = torch.stack([classifier(x) for classifier in self.classifiers])
        return RoiOutput(logits, self.regressor(described[0]).unflatten(1, (self.classes, 4)))

    def _region(self, features: Features, boxes: Tensor, depth: int, skip: nn.Module, scale: Scale) -> Tensor:
        """Features (R, C, S, S) of a region."""
        pooled = [self._pool(features[-level], level, boxes, scale) for level in range(depth, 0, -1)]
        return skip(pooled) if self.spec.skips else pooled[0]


def _around(boxes: Tensor, region: float, scale: Scale) -> Tensor:
    """Regions around boxes (R, 4), as far as they lie within the image."""
    return boxes if region == 1 else clip_boxes(grow_boxes(boxes, region), scale.size)


def _joining(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1x1 convolution that keeps the size of what it joins."""
    layer = nn.Conv2d(inputs, outputs, 1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _output(inputs: int, outputs: int, std: float) -> nn.Linear:
    """A last layer, as small at first as Fast R-CNN's."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)
    return layer


def rescaled_size(size: tuple[int, int], spec: DetectorSpec, zoom: float = 1.0) -> tuple[int, int]:
    """(H, W) that an image is rescaled to: `zoom` times the spec's short side, or less for the long side, in multiples
    of 16."""
    factor = zoom * min(spec.short_side / min(size), spec.long_side / max(size))
    height, width = (max(16, 16 * int(side * factor / 16 + 0.5)) for side in size)
    return height, width


def build_detector(spec: DetectorSpec, classes: int) -> FastRCNN | MultiPathNet:
    """A network with random weights for K classes."""
    return MultiPathNet(spec, classes) if spec.multipath else FastRCNN(spec, classes)


@torch.no_grad()
def take_weights(
    network: FastRCNN | MultiPathNet, other: FastRCNN | MultiPathNet, common: Sequence[tuple[int, int]]
) -> None:
    """Fill a network with the weights of another as far as they fit.

    Args:
        common: classes that both know, as their places in this and in the other one, from 0; of each the rows of the
            classifiers and of the box regression are taken, and of the background, which all know.
    """
    theirs = other.state_dict()
    for name, own in network.state_dict().items():
        given = theirs.get(name)
        if given is None or given.shape[1:] != own.shape[1:]:
            continue
        if name.startswith("classifier"):
            for place, source in ((0, 0), *((a + 1, b + 1) for a, b in common)):
                own[place] = given[source]
        elif name.startswith("regressor"):
            for place, source in common:
                own[4 * place : 4 * place + 4] = given[4 * source : 4 * source + 4]
        elif given.shape == own.shape:
            own.copy_(given)
