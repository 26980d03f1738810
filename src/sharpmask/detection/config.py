"""Everything that defines the training of a detector. The field docs become the command line's help."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from sharpmask.errors import ConfigError
from sharpmask.training.config import RunConfig, Schedule


@dataclass(frozen=True)
class DetectorConfig(Schedule, RunConfig):
    """A run: data, proposals, detector, schedule. The defaults are Fast R-CNN's on COCO."""

    detector: str = "fast-rcnn-vgg16"
    """name of a detector of the table: fast-rcnn-… or multipathnet-… on vgg16, resnet50, resnet50-light or lite0;
    resnet50-caffe and -caffe-light have the stride on the 1x1 convolutions;
    multipathnet-…-no-foveal, -no-skips and -no-integral leave one part out; resnet50-c4, resnet50-caffe-c4, lite0-c4
    and lite2-c4 look at each box with the last stages of the classifier, which trunk_weights must hold"""
    start_from: str | None = None
    """detector to start from, detector-lite2 or a file: its trunk, and all layers that fit"""
    proposals: str | None = None
    """COCO results file with proposals for the training images, of any program; none: computed with proposal_model"""
    proposal_model: str = "sharpmask-lite0"
    """name or file of the model that proposes where no file is given; its boxes are kept in proposal_cache"""
    proposal_cache: str | None = None
    """file for the boxes that were computed; by default train-proposals.jsonl in the output folder"""
    proposal_count: int = 1000
    """best proposals of an image that are looked at"""
    val_proposals: str | None = None
    """proposals for the validation images, as for training; none: computed, and kept in val-proposals.jsonl in the
    output folder"""
    classes: tuple[str, ...] = ()
    """names of the classes to learn; none: all with min_examples objects"""
    min_examples: int = 50
    """objects that a class needs to be learnt, where no classes are named"""
    complete_classes: bool = False
    """in a photo that is not exhaustive, all objects of each class are annotated of which any is: then boxes on nothing
    annotated teach what is none of that class, instead of nothing"""
    short_side: int | None = None
    """shorter side to which photos are rescaled, in pixels; by default the detector's"""
    zooms: tuple[float, ...] = (1.0,)
    """each time a photo is seen, it is rescaled to one of these multiples of its size, drawn at random (multi-scale
    training)"""
    jitter: int = 0
    """boxes around each annotated object, moved and resized at random, that are added to the proposals; small objects
    have few proposals"""
    rois: int = 64
    """boxes that are drawn from an image in each step"""
    foreground: float = 0.25
    """largest share of objects among them"""
    background_from: float = 0.0
    """least overlap of a background box with some object; Fast R-CNN has 0.1"""
    box_weight: float = 1.0
    """weight of the box loss against the class loss"""
    flip: bool = True
    """mirror every other image"""
    repeat_below: float = 0.0
    """images with a class that less than this share of the images have are seen more often (repeat factor sampling)"""
    head_factor: float = 1.0
    """of the detectors named …-c4: the learning rate of the classifier's stages as a multiple of `learning_rate`"""
    validation_photos: int = 500
    """photos on which a validation measures the AP of boxes"""

    steps: int = 240_000
    """optimiser steps"""
    batch_size: int = 2
    """images of one step, over all processes together"""
    trunk_factor: float = 1.0
    """the trunk's learning rate as a multiple of `learning_rate`; 0 freezes it, and its features are computed once"""
    weight_decay: float = 5e-4
    """of all weights; under adamw not of biases"""
    milestones: tuple[int, ...] = (160_000,)
    factors: tuple[float, ...] = (0.1,)
    warmup: int = 500
    clip: float = 35.0
    cache_gigabytes: float = 2.0
    """memory for decoded photos, or for the features of a frozen trunk, for each training process"""
    validate_every: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self.assert_schedule()
        if self.steps < 1 or self.rois < 1:
            raise ConfigError("steps and rois must be positive")
        if not 0 < self.foreground <= 1 or not 0 <= self.background_from < 0.5:
            raise ConfigError("foreground must lie above 0 and not above 1, background_from from 0 to below 0.5")
        if not 0 <= self.repeat_below <= 1:
            raise ConfigError(f"repeat_below {self.repeat_below:g}: must lie between 0 and 1")
        if self.proposal_count < 1 or self.min_examples < 1 or self.head_factor < 0:
            raise ConfigError("proposal_count and min_examples must be positive, head_factor not negative")
        if not self.zooms or min(self.zooms) <= 0 or self.jitter < 0:
            raise ConfigError("zooms must be one or more positive numbers, and jitter must not be negative")
        if self.validation_photos < 1:
            raise ConfigError(f"validation_photos {self.validation_photos}: must be positive")
        if self.short_side is not None and self.short_side < 32:
            raise ConfigError(f"short_side {self.short_side}: must be at least 32 pixels")


def detector_config_file(name: str) -> str:
    """The path of a config: `name` itself if there is such a file, else the shipped detector config of that name.

    Raises:
        ConfigError: there is neither.
    """
    if Path(name).is_file():
        return name
    folder = Path(str(resources.files("sharpmask") / "detection" / "configs"))
    shipped = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in shipped:
        raise ConfigError(f"no config file '{name}'; shipped configs for detectors are: {', '.join(shipped)}")
    return str(shipped[name])
