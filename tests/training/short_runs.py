"""Runs that take seconds."""

from pathlib import Path

from sharpmask.data.augment import Augmentation
from sharpmask.training.config import StageConfig, TrainConfig


def short_stage(steps: int, batches: str = "joint", **more: object) -> StageConfig:
    """A few AdamW steps of four patches."""
    settings: dict[str, object] = {
        "steps": steps,
        "batch_size": 4,
        "batches": batches,
        "optimiser": "adamw",
        "schedule": "cosine",
        "milestones": (),
        "factors": (),
        "average": 0.9,
        "negative_shift": 32.0,
        "negative_octaves": 1.0,
        "augmentation": Augmentation(colour=0.2),
    }
    return StageConfig(**{**settings, **more})


def short_run(folder: Path, output: Path, **more: object) -> TrainConfig:
    """A run of both stages on `shapes`."""
    settings: dict[str, object] = {
        "annotations": str(folder / "instances.json"),
        "images": str(folder),
        "output": str(output),
        "model": "sharpmask-lite0",
        "deepmask": short_stage(3),
        "sharpmask": short_stage(2, "mask"),
        "workers": 0,
        "checkpoint_every": 1,
        "log_every": 1,
        "validation_patches": 8,
        "device": "cpu",
    }
    return TrainConfig(**{**settings, **more})
