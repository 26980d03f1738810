"""Everything that defines a training run. The field docs become the command line's help."""

import dataclasses
import math
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from sharpmask.data.augment import Augmentation
from sharpmask.data.folds import parse_fold
from sharpmask.errors import ConfigError

RANDOM_TRUNK = (
    "neither trunk_weights nor start_from is given: the trunk starts from random numbers; a short run needs ImageNet "
    "weights or a trained model"
)


@dataclass(frozen=True)
class Schedule:
    """Steps of the optimiser and their learning rates."""

    steps: int = 600_000
    """optimiser steps; 0 leaves the stage out"""
    batch_size: int = 32
    """patches of one step, over all processes together, as even as it can be shared out"""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """sgd: as the papers; adamw: for short runs"""
    learning_rate: float = 1e-3
    """of the first step after warm-up"""
    reference_batch: int = 0
    """batch size that `learning_rate` is meant for: with another `batch_size` the rate is multiplied by their ratio;
    0: the rate is used as it is"""
    trunk_factor: float = 1.0
    """the trunk's learning rate as a multiple of `learning_rate`; 0 freezes the trunk"""
    trunk_start: int = 0
    """steps for which the trunk is left as it is, until what lies on top of it has settled"""
    momentum: float = 0.9
    """of SGD"""
    weight_decay: float = 5e-4
    """release 5e-4, paper 5e-5; under adamw not of biases"""
    schedule: Literal["steps", "cosine"] = "steps"
    """steps: multiplied by `factors` from `milestones` on; cosine: falls to zero at the last step"""
    milestones: tuple[int, ...] = (200_000, 480_000)
    """steps at which the learning rate changes"""
    factors: tuple[float, ...] = (0.5, 0.1)
    """what the first learning rate is multiplied by from each milestone on"""
    warmup: int = 0
    """steps over which the learning rate rises from zero"""
    clip: float = 0.0
    """largest norm of the gradient; 0: no limit"""
    average: float = 0.0
    """decay of the running average of the weights that is validated and saved (0.999 is usual); 0: no average"""

    def assert_schedule(self, prefix: str = "") -> None:
        """Refuse what no optimiser can do.

        Args:
            prefix: what stands before the names of these fields on the command line.

        Raises:
            ConfigError: which field, and why.
        """
        if len(self.milestones) != len(self.factors):
            raise ConfigError(f"{prefix}milestones and {prefix}factors must have the same length")
        if self.steps < 0 or self.learning_rate <= 0:
            raise ConfigError(f"{prefix}steps must not be negative and {prefix}learning_rate must be positive")
        if self.batch_size < 1:
            raise ConfigError(f"{prefix}batch_size must be positive")
        for name in ("reference_batch", "trunk_factor", "trunk_start", "weight_decay", "warmup", "clip"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{prefix}{name} must not be negative")
        for name in ("momentum", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{prefix}{name} must lie from 0 to below 1")


@dataclass(frozen=True)
class RunConfig:
    """What every run has: data to train and to validate on, a place for the results, a machine."""

    annotations: str
    """COCO instances JSON to train on"""
    images: str
    """folder of its images"""
    output: str
    """folder for checkpoints, logs and the trained network"""
    val_annotations: str | None = None
    """COCO instances JSON to validate on; none: no validation"""
    val_images: str | None = None
    """folder of its images"""
    trunk_weights: str | None = None
    """safetensors file of an ImageNet trunk with torchvision's or timm's names, or a trained model to take it from"""
    start_from: str | None = None
    """name or file of a trained network to start from, instead of trunk_weights"""
    seed: int = 0
    """of weights, examples and dropout; the same seed gives the same run on a CPU"""
    device: str | None = None
    """torch device; by default the GPU if there is one, else the CPU"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast the networks; the losses and weights stay in fp32"""
    workers: int = 1
    """processes that prepare examples, for each training process"""
    threads: int | None = None
    """CPU threads of each training process; by default torch's choice"""
    cache_gigabytes: float = 2.0
    """memory for decoded photos, for each training process"""
    validate_every: int = 4000
    """steps between validations"""
    checkpoint_every: int = 1000
    """steps between checkpoints"""
    keep_checkpoints: int = 2
    """how many of them are kept; when the newest turns out damaged, the one before it is used"""
    log_every: int = 50
    """steps between log lines and TensorBoard scalars"""

    def __post_init__(self) -> None:
        assert_finite(self)
        if self.checkpoint_every < 1 or self.keep_checkpoints < 1:
            raise ConfigError("checkpoint_every and keep_checkpoints must be at least 1")
        if self.validate_every < 1 or self.log_every < 1:
            raise ConfigError("validate_every and log_every must be at least 1")
        if self.seed < 0 or self.workers < 0 or self.cache_gigabytes < 0:
            raise ConfigError("seed, workers and cache_gigabytes must not be negative")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads {self.threads}: must be at least 1")
        if (self.val_annotations is None) != (self.val_images is None):
            raise ConfigError("val_annotations and val_images must be given together")
        if self.start_from is not None and self.trunk_weights is not None:
            raise ConfigError(
                f"start_from={self.start_from} has a trunk already, trunk_weights={self.trunk_weights} would not be "
                "used; leave one of them out with start_from=null or trunk_weights=null"
            )

    @property
    def origin(self) -> str | None:
        """Where the trunk's weights come from; None: from random numbers (see RANDOM_TRUNK)."""
        return self.start_from or self.trunk_weights


@dataclass(frozen=True)
class StageConfig(Schedule):
    """One stage of training: DeepMask (mask and score), or SharpMask (refinement only, the rest frozen)."""

    batches: Literal["alternate", "joint", "mask"] = "alternate"
    """what a batch holds: masks or scores in turn (release), both together, or masks only (the refinement stage)"""
    mask_weight: float = 32.0
    """weight of the mask loss (mean over pixels) against the score loss; 32, the batch size, as the release"""
    boundary_weight: float = 0.0
    """how much more the pixels beside the object's edge count in the mask loss: 2 makes them count three times"""
    score_target: Literal["label", "iou", "both"] = "label"
    """what the score learns: whether there is an object (papers), the IoU that the mask has with it (0 for negatives),
    or the mean of the two; the IoU needs batches that are joint"""
    distil: float = 0.0
    """how much of the targets is what `teacher` says of the patch: 0 nothing, 1 all"""
    shift: float = 16.0
    """how far a positive's centre is moved at most, in patch pixels; half the stride is the distance of a window"""
    negative_shift: float = 48.0
    """how far a negative's centre is from objects of near scale, in patch pixels: release 48, DeepMask paper 32"""
    negative_octaves: float = 2.5
    """which scales are near, in octaves: release 2.5, DeepMask paper 1"""
    hard_negatives: float = 0.0
    """share of the negatives that come from the run's list `negatives` of what a model took for objects"""
    balance: Literal["category", "annotation", "area"] = "category"
    """draw a category first (release), every annotation alike, or an octave of size first"""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """variation beyond the canonical jitter"""

    def assert_valid(self, name: str) -> None:
        """Refuse settings that this stage, called `name`, cannot be trained with.

        Raises:
            ConfigError: which field, and why.
        """
        assert_finite(self, f"{name}.")
        assert_finite(self.augmentation, f"{name}.augmentation.")
        self.assert_schedule(f"{name}.")
        if not 0 <= self.distil <= 1 or not 0 <= self.hard_negatives <= 1 or self.boundary_weight < 0:
            raise ConfigError(
                f"{name}: distil and hard_negatives must lie between 0 and 1, boundary_weight must not be negative"
            )
        if self.batches != "mask" and self.batch_size % 2:
            raise ConfigError(f"{name}.batch_size must be even, since half of a batch are objects: {self.batch_size}")
        if self.hard_negatives and self.batches == "mask":
            raise ConfigError(f"{name}.hard_negatives has no effect: batches of masks alone hold no negatives")
        if self.mask_weight < 0 or min(self.shift, self.negative_shift, self.negative_octaves) < 0:
            raise ConfigError(f"{name}: mask_weight, shift, negative_shift and negative_octaves must not be negative")
        if self.score_target != "label" and self.batches != "joint":
            raise ConfigError(f"{name}.score_target '{self.score_target}' needs {name}.batches=joint")


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A run: data, model, its stages."""

    model: str = "sharpmask-resnet50"
    """name of a model of the spec table; one without refinement (deepmask-...) is trained by stage 1 alone"""
    start_from: str | None = None
    """name or file of a trained model whose weights the run starts from, instead of an ImageNet trunk; where its
    refinement has other layers, those of its DeepMask, and where its head has, those of its trunk"""
    deepmask: StageConfig = field(default_factory=StageConfig)
    """stage 1"""
    sharpmask: StageConfig = field(
        default_factory=lambda: StageConfig(steps=400_000, batches="mask", milestones=(200_000, 320_000))
    )
    """stage 2"""
    endtoend: StageConfig = field(default_factory=lambda: StageConfig(steps=0, batches="joint", learning_rate=1e-4))
    """stage 3, left out by default: all weights together, on refined masks and scores"""
    teacher: str | None = None
    """name or file of a trained model whose masks and scores the stages with `distil` learn from"""
    negatives: str | None = None
    """list of windows for `hard_negatives`, written by `sharpmask mine negatives`"""
    fold: str | None = None
    """K/N: leave part K (1 to N) of the exhaustive photos out of training, to be measured on"""
    measure_photos: int = 0
    """photos, of the validation data and of the fold each, on which AR of the finished model is measured for the
    ledger; 0: none"""
    validation_patches: int = 1000
    """canonical patches that a validation measures"""
    validation_photos: int = 0
    """photos on which a validation measures AR; 0: patches only"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measure_photos < 0 or self.validation_photos < 0 or self.validation_patches < 1:
            raise ConfigError(
                "measure_photos and validation_photos must not be negative, validation_patches must be positive"
            )
        for name, stage in self.stages.items():
            stage.assert_valid(name)
            if stage.distil and self.teacher is None:
                raise ConfigError(f"{name}.distil asks for a teacher: give teacher=MODEL, or leave it at 0")
            if stage.hard_negatives and self.negatives is None:
                raise ConfigError(
                    f"{name}.hard_negatives asks for a list: give negatives=FILE (see `sharpmask mine`), or 0"
                )
        if self.endtoend.batches != "joint":
            raise ConfigError("endtoend.batches must be 'joint': stage 3 trains mask and score together")
        if self.fold is not None:
            parse_fold(self.fold)
        if self.sharpmask.batches != "mask":
            raise ConfigError("sharpmask.batches must be 'mask': stage 2 trains the refinement only")
        if self.deepmask.batches == "mask":
            raise ConfigError("deepmask.batches must be 'alternate' or 'joint': stage 1 trains mask and score")

    @property
    def stages(self) -> dict[str, StageConfig]:
        """By name, in their order."""
        return {"deepmask": self.deepmask, "sharpmask": self.sharpmask, "endtoend": self.endtoend}


def assert_finite(settings: Any, prefix: str = "") -> None:
    """Refuse numbers of a dataclass that are none (nan) or infinite, which limits let pass.

    Raises:
        ConfigError: which field.
    """
    for entry in dataclasses.fields(settings):
        value = getattr(settings, entry.name)
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
            raise ConfigError(f"{prefix}{entry.name} {value}: must be a finite number")


def config_file(name: str) -> str:
    """The path of a config: `name` itself if there is such a file, else the shipped config of that name.

    Raises:
        ConfigError: there is neither.
    """
    if Path(name).is_file():
        return name
    folder = Path(str(resources.files("sharpmask") / "configs"))
    shipped = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    if name not in shipped:
        raise ConfigError(f"no config file '{name}'; shipped configs are: {', '.join(shipped)}")
    return str(shipped[name])
