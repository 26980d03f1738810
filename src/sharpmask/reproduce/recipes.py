"""How a row is trained: the shipped configs, shortened or in full."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import yaml

from sharpmask.data.augment import Augmentation
from sharpmask.errors import ConfigError
from sharpmask.proposals.proposer import pick_device
from sharpmask.reproduce.study import Options, Row
from sharpmask.training.config import StageConfig, TrainConfig, config_file

CONFIGS = {"short": "small-cpu", "paper": "coco"}


def train_config(row: Row, options: Options, *, steps: int, output: Path, start: str | None) -> TrainConfig:
    """The run that trains one row, of its stage only.

    Args:
        steps: of the short schedule; the paper's has its own, `paper_steps`.
        start: name or file of the model that training starts from, None for the row's ImageNet trunk.

    Raises:
        ConfigError: the data set has no photos to train on.
    """
    train = options.data.train
    if train is None:
        raise ConfigError(f"{options.data.folder} has no photos to train on, only those to measure on")
    shipped = yaml.safe_load(Path(config_file(CONFIGS[options.schedule])).read_text(encoding="utf-8"))
    stages = {name: stage_config(shipped[name]) for name in ("deepmask", "sharpmask")}
    if options.schedule == "short":
        stages = {
            name: dataclasses.replace(
                stage,
                steps=steps,
                warmup=min(stage.warmup, steps // 5),
                learning_rate=stage.learning_rate * row.rate,
                trunk_factor=0.0,
            )
            for name, stage in stages.items()
        }
    for name in stages:
        if name != row.stage:
            stages[name] = dataclasses.replace(stages[name], steps=0)
    gpu, cores = pick_device(options.device).type == "cuda", os.cpu_count() or 1
    return TrainConfig(
        annotations=str(train.annotations),
        images=str(train.images),
        output=str(output),
        model=row.model,
        trunk_weights=row.trunk_weights,
        start_from=start,
        seed=options.seed,
        device=options.device,
        precision=options.precision or (shipped.get("precision", "fp32") if gpu else "fp32"),
        workers=min(8, cores) if gpu else int(cores > 2),
        checkpoint_every=50 if options.schedule == "short" else shipped["checkpoint_every"],
        log_every=10,
        deepmask=stages["deepmask"],
        sharpmask=stages["sharpmask"],
    )


def paper_steps(row: Row) -> int:
    """Steps of the released schedule for the row's stage."""
    shipped = yaml.safe_load(Path(config_file(CONFIGS["paper"])).read_text(encoding="utf-8"))
    return int(shipped[row.stage]["steps"])


def stage_config(values: dict[str, Any]) -> StageConfig:
    """A stage as a shipped YAML file has it."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return StageConfig(**{**values, "augmentation": Augmentation(**values.get("augmentation", {}))})
