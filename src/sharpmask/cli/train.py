"""Train DeepMask, then SharpMask, on COCO-format data. Settings come from --config and from FIELD=VALUE arguments."""

import re

from jsonargparse import ArgumentParser, Namespace

from sharpmask.data.augment import Augmentation
from sharpmask.field_docs import field_docs
from sharpmask.training.config import StageConfig, TrainConfig, config_file


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--config", action="config", help="YAML file with the run's settings, or the name of a shipped one"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    parser.add_class_arguments(TrainConfig, as_group=False)
    docs = settings()
    for action in parser._actions:
        if action.dest in docs:
            action.help = docs[action.dest].replace("%", "%%")
    for group in parser._action_groups:  # those of nested dataclasses are called like their class
        names = [action.dest for action in group._group_actions]
        if names and names[0] in docs:
            group.title = f"{names[0]}: {docs[names[0]]}"


def settings() -> dict[str, str]:
    """What is given as FIELD=VALUE, with its meaning."""
    return field_docs(TrainConfig)


def rewrite(arguments: list[str]) -> list[str]:
    """FIELD=VALUE -> --FIELD=VALUE, and the name of a shipped config -> its path."""
    rewritten = [f"--{a}" if re.match(r"[a-z][\w.]*=", a) else a for a in arguments]
    for i, argument in enumerate(rewritten):
        if argument.startswith("--config="):
            rewritten[i] = f"--config={config_file(argument.removeprefix('--config='))}"
        elif i and rewritten[i - 1] == "--config":
            rewritten[i] = config_file(argument)
    return rewritten


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
