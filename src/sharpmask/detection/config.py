"""Everything that defines the training of a detector. The field docs become the command line's help."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from sharpmask.errors import ConfigError
from sharpmask.training.config import StageConfig


@dataclass(frozen=True)
class DetectorConfig:
    """A run: data, proposals, detector, schedule. The defaults are Fast R-CNN's on COCO."""

    annotations: str
    """COCO instances JSON to train on"""
    images: str
    """folder of its images"""
    output: str
    """folder for checkpoints, logs and the trained detector"""
    detector: str = "fast-rcnn-vgg16"
    """name of a detector of the table: fast-rcnn-… or multipathnet-… on vgg16, resnet50, resnet50-light or lite0;
    resnet50-caffe and -caffe-light have the stride on the 1x1 convolutions;
    multipathnet-…-no-foveal, -no-skips and -no-integral leave one part out; resnet50-c4, resnet50-caffe-c4, lite0-c4
    and lite2-c4 look at each box with the last stages of the classifier, which trunk_weights must hold"""
    proposals: str | None = None
    """COCO results file with proposals for the training images, of any program; none: computed with proposal_model"""
    proposal_model: str = "sharpmask-lite0"
    """name or file of the model that proposes where no file is given; its boxes are kept in proposal_cache"""
    proposal_cache: str | None = None
    """file for the boxes that were computed; by default train-proposals.jsonl in the output folder"""
    proposal_count: int = 1000
    """best proposals of an image that are looked at"""
    trunk_weights: str | None = None
    """safetensors file of an ImageNet trunk with torchvision's or timm's names, or a trained model to take it from"""
    start_from: str | None = None
    """detector to start from, detector-lite0 or a file: its trunk, and all layers that fit"""
    classes: tuple[str, ...] = ()
    """names of the classes to learn; none: all with min_examples objects"""
    min_examples: int = 50
    """objects that a class needs to be learnt, where no classes are named"""
    complete_classes: bool = False
    """in a photo that is not exhaustive, all objects of each class are annotated of which any is: then boxes on nothing
    annotated teach what is none of that class, instead of nothing"""
    val_annotations: str | None = None
    """COCO instances JSON to validate on; none: no validation"""
    val_images: str | None = None
    """folder of its images"""
    val_proposals: str | None = None
    """proposals for them, as for training; none: computed, and kept in val-proposals.jsonl in the output folder"""
    short_side: int | None = None
    """shorter side to which photos are rescaled, in pixels; by default the detector's"""
    steps: int = 240_000
    """optimiser steps"""
    batch_size: int = 2
    """images of one step, over all processes together"""
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
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """sgd: as the papers; adamw: for short runs"""
    learning_rate: float = 1e-3
    """of the first step after warm-up"""
    trunk_factor: float = 1.0
    """the trunk's learning rate as a multiple of `learning_rate`; 0 freezes it, and its features are computed once"""
    head_factor: float = 1.0
    """of the detectors named …-c4: the learning rate of the classifier's stages as a multiple of `learning_rate`"""
    momentum: float = 0.9
    """of SGD"""
    weight_decay: float = 5e-4
    """of all weights (adamw: not of biases)"""
    schedule: Literal["steps", "cosine"] = "steps"
    """steps: multiplied by `factors` from `milestones` on; cosine: falls to zero at the last step"""
    milestones: tuple[int, ...] = (160_000,)
    """steps at which the learning rate changes"""
    factors: tuple[float, ...] = (0.1,)
    """what the first learning rate is multiplied by from each milestone on"""
    warmup: int = 500
    """steps over which the learning rate rises from zero"""
    clip: float = 35.0
    """largest norm of the gradient; 0: no limit"""
    average: float = 0.0
    """decay of the running average of the weights that is validated and saved; 0: no average"""
    seed: int = 0
    """of weights, boxes and dropout; the same seed gives the same run on a CPU"""
    device: str | None = None
    """torch device; by default the GPU if there is one, else the CPU"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast the network; the losses and weights stay in fp32"""
    workers: int = 1
    """processes that read images, for each training process"""
    threads: int | None = None
    """CPU threads of each training process; by default torch's choice"""
    cache_gigabytes: float = 2.0
    """memory for decoded photos, or for the features of a frozen trunk, for each training process"""
    validate_every: int = 10_000
    """steps between validations"""
    validation_photos: int = 500
    """photos on which a validation measures the AP of boxes"""
    checkpoint_every: int = 1000
    """steps between checkpoints"""
    keep_checkpoints: int = 2
    """how many of them are kept; when the newest turns out damaged, the one before it is used"""
    log_every: int = 50
    """steps between log lines and TensorBoard scalars"""

    def __post_init__(self) -> None:
        if len(self.milestones) != len(self.factors):
            raise ConfigError("milestones and factors must have the same length")
        if self.steps < 1 or self.learning_rate <= 0 or self.batch_size < 1 or self.rois < 1:
            raise ConfigError("steps, learning_rate, batch_size and rois must be positive")
        if not 0 < self.foreground <= 1 or not 0 <= self.background_from < 0.5:
            raise ConfigError("foreground must lie above 0 and not above 1, background_from from 0 to below 0.5")
        if not 0 <= self.repeat_below <= 1:
            raise ConfigError(f"repeat_below {self.repeat_below:g}: must lie between 0 and 1")
        if self.proposal_count < 1 or self.min_examples < 1 or min(self.trunk_factor, self.head_factor) < 0:
            raise ConfigError(
                "proposal_count and min_examples must be positive, trunk_factor and head_factor not negative"
            )
        if self.checkpoint_every < 1 or self.keep_checkpoints < 1:
            raise ConfigError("checkpoint_every and keep_checkpoints must be at least 1")
        if self.short_side is not None and self.short_side < 32:
            raise ConfigError(f"short_side {self.short_side}: must be at least 32 pixels")
        if (self.val_annotations is None) != (self.val_images is None):
            raise ConfigError("val_annotations and val_images must be given together")

    def stage(self) -> StageConfig:
        """The schedule as the optimiser of the proposal networks takes it."""
        names = (
            "steps", "batch_size", "optimiser", "learning_rate", "trunk_factor", "momentum", "weight_decay",
            "schedule", "milestones", "factors", "warmup", "clip", "average",
        )  # fmt: skip
        return StageConfig(**{name: getattr(self, name) for name in names})


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
