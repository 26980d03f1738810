"""Every detector of the package: one table from name to architecture, as `networks.specs` has it for proposals."""

from dataclasses import dataclass, replace
from typing import Literal

from sharpmask.errors import ConfigError
from sharpmask.networks.specs import ModelSpec, Trunk

# The regions around a box of MultiPathNet, and how many of the trunk's levels each sees: the coarsest so many. Wide
# regions tell what surrounds the object, for which fine features are of little use.
FOVEAL = (1.0, 1.5, 2.0, 4.0)
SKIPS = {1.0: 3, 1.5: 3, 2.0: 2, 4.0: 1}
# IoU thresholds, in percent, of the integral loss.
INTEGRAL = (50, 55, 60, 65, 70, 75)


@dataclass(frozen=True)
class DetectorSpec:
    """A detector's architecture, without its classes.

    The defaults are Fast R-CNN's (arXiv 1504.08083); MultiPathNet (arXiv 1604.02135) adds regions, skips, thresholds.

    Attributes:
        name: what users give to `train-detector`.
        trunk, trunk_width, stride_on: as in `networks.specs.ModelSpec`; features of stride 16.
        multipath: MultiPathNet rather than Fast R-CNN; only it takes what follows below.
        short_side, long_side: images are rescaled to this shorter side, but so that the longer is not above its own.
        pooled_channels: the trunk's last features are brought to so many channels by a 1x1 convolution before boxes are
            pooled, which makes a ResNet's boxes cheap (the thin features of Light-Head R-CNN, arXiv 1711.07264); None:
            they are pooled as they are.
        pooled_side: cells along a side of a box's features; even for the head "c5".
        head: what describes a region's pooled features: "fc", two fully connected layers, or "c5", the classifier's
            stages that follow the trunk, with their ImageNet weights, averaged over their cells (ResNet paper, arXiv
            1512.03385, appendix A).
        hidden: units of each of the two fully connected layers, for each region; of the head "c5", of the layer beside
            the average.
        dropout: after each of them, in training.
        regions: sides of the regions around a box, in sides of the box; 1 first, which alone gives the box regression.
        skips: pool the trunk's last three levels rather than the last.
        thresholds: IoU in percent from which each classifier takes a box for an object; their
            probabilities are averaged.

    Raises:
        ConfigError: regions that do not begin with 1, thresholds outside 50 … 95, parts of MultiPathNet in a Fast
            R-CNN, or features that the head "c5" does not take.
    """

    name: str
    trunk: Trunk
    trunk_width: int = 64
    stride_on: Literal["1x1", "3x3"] = "3x3"
    multipath: bool = False
    short_side: int = 600
    long_side: int = 1000
    pooled_channels: int | None = None
    pooled_side: int = 7
    head: Literal["fc", "c5"] = "fc"
    hidden: int = 4096
    dropout: float = 0.5
    regions: tuple[float, ...] = (1.0,)
    skips: bool = False
    thresholds: tuple[int, ...] = (50,)

    def __post_init__(self) -> None:
        if not self.regions or self.regions[0] != 1 or any(region < 1 for region in self.regions):
            raise ConfigError(f"detector '{self.name}': regions must begin with 1 and be no smaller")
        if not self.thresholds or not all(50 <= threshold <= 95 for threshold in self.thresholds):
            raise ConfigError(f"detector '{self.name}': thresholds must lie between 50 and 95 percent")
        if not self.multipath and (len(self.regions) > 1 or self.skips or self.thresholds != (50,)):
            raise ConfigError(f"detector '{self.name}': a Fast R-CNN has one region, no skips and the threshold 50")
        if self.head == "c5" and (self.pooled_channels is not None or self.pooled_side % 2):
            raise ConfigError(f"detector '{self.name}': the head 'c5' takes the trunk's features, of an even side")

    def of_side(self, short_side: int | None) -> "DetectorSpec":
        """The same for images of another shorter side, with the longer in proportion; None: as it is."""
        if short_side is None:
            return self
        return replace(self, short_side=short_side, long_side=round(self.long_side * short_side / self.short_side))

    @property
    def trunk_spec(self) -> ModelSpec:
        """The trunk as the networks' table describes it."""
        return ModelSpec(
            name=self.name, trunk=self.trunk, trunk_width=self.trunk_width, stride_on=self.stride_on, features=None
        )


# For a CPU all is smaller: photos, layers, and with them the papers' dropout.
_LIGHT_RESNET50 = DetectorSpec(
    name="fast-rcnn-resnet50-light",
    trunk="resnet50",
    short_side=480,
    long_side=800,
    pooled_channels=256,
    hidden=512,
    dropout=0.2,
)

# VGG-16 is the papers'; ResNet's layers are smaller, since its features have more channels.
_BASES = (
    DetectorSpec(name="fast-rcnn-vgg16", trunk="vgg_16"),
    DetectorSpec(name="fast-rcnn-resnet50", trunk="resnet50", hidden=1024),
    DetectorSpec(name="fast-rcnn-resnet50-caffe", trunk="resnet50", stride_on="1x1", hidden=1024),
    _LIGHT_RESNET50,
    replace(_LIGHT_RESNET50, name="fast-rcnn-resnet50-caffe-light", stride_on="1x1"),
    DetectorSpec(
        name="fast-rcnn-lite0", trunk="efficientnet_lite0", short_side=400, long_side=672, hidden=512, dropout=0.2
    ),
)

# The features of C4 are pooled and C5 looks at each box: nearly all of the weights come from ImageNet, where the fully
# connected layers of the others have to be learnt from the boxes alone.
_C4_RESNET50 = DetectorSpec(
    name="fast-rcnn-resnet50-c4", trunk="resnet50", pooled_side=14, head="c5", hidden=256, dropout=0.2
)
_C4_LITE0 = DetectorSpec(
    name="fast-rcnn-lite0-c4",
    trunk="efficientnet_lite0",
    short_side=800,
    long_side=1344,
    pooled_side=14,
    head="c5",
    hidden=256,
    dropout=0.2,
)
_C4_ROWS = (
    _C4_RESNET50,
    replace(_C4_RESNET50, name="fast-rcnn-resnet50-caffe-c4", stride_on="1x1"),
    _C4_LITE0,
    replace(_C4_LITE0, name="fast-rcnn-lite2-c4", trunk="efficientnet_lite2"),
    replace(_C4_LITE0, name="multipathnet-lite0-c4", multipath=True, thresholds=INTEGRAL),
    replace(_C4_LITE0, name="multipathnet-lite2-c4", trunk="efficientnet_lite2", multipath=True, thresholds=INTEGRAL),
)


def _rows() -> list[DetectorSpec]:
    """Each base, MultiPathNet on it, and MultiPathNet without each of its three parts; and those on C4."""
    rows = list(_C4_ROWS)
    for base in _BASES:
        full = replace(
            base,
            name=base.name.replace("fast-rcnn", "multipathnet"),
            multipath=True,
            regions=FOVEAL,
            skips=True,
            thresholds=INTEGRAL,
        )
        rows += [
            base,
            full,
            replace(full, name=f"{full.name}-no-foveal", regions=(1.0,)),
            replace(full, name=f"{full.name}-no-skips", skips=False),
            replace(full, name=f"{full.name}-no-integral", thresholds=(50,)),
        ]
    return rows


DETECTORS: dict[str, DetectorSpec] = {spec.name: spec for spec in _rows()}


def get_detector_spec(name: str) -> DetectorSpec:
    """The spec of that name; ConfigError with the known names otherwise."""
    try:
        return DETECTORS[name]
    except KeyError:
        raise ConfigError(f"no detector named '{name}'; there are: {', '.join(DETECTORS)}") from None
