"""Train DeepMask, then SharpMask, on COCO-format data. Settings come from --config and from FIELD=VALUE arguments."""

from jsonargparse import ArgumentParser, Namespace

from sharpmask.cli.settings import add_settings, rewrite_settings
from sharpmask.data.augment import Augmentation
from sharpmask.field_docs import field_docs
from sharpmask.training.config import StageConfig, TrainConfig, config_file


def add_arguments(parser: ArgumentParser) -> None:
    add_settings(parser, TrainConfig)


def settings() -> dict[str, str]:
    """What is given as FIELD=VALUE, with its meaning."""
    return field_docs(TrainConfig)


def rewrite(arguments: list[str]) -> list[str]:
    """See `rewrite_settings`."""
    return rewrite_settings(arguments, config_file)


def train_config(args: Namespace) -> TrainConfig:
    """The settings that were parsed, as the dataclass that training takes."""
    settings = args.as_dict()
    for option in ("config", "resume"):
        settings.pop(option, None)
    for name in ("deepmask", "sharpmask", "endtoend"):
        stage = settings[name]
        settings[name] = StageConfig(**{**stage, "augmentation": Augmentation(**stage["augmentation"])})
    return TrainConfig(**settings)


def run(args: Namespace) -> int:
    from sharpmask.training.run import train

    path = train(train_config(args), resume=args.resume)
    print(f"trained model: {path}")
    return 0
