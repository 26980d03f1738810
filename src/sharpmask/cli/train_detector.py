"""Train a detector, Fast R-CNN or MultiPathNet, on COCO-format data and proposals. Settings come from --config and from
FIELD=VALUE arguments. Images with "exhaustive": false never make background of what nobody annotated."""

import re
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from sharpmask.detection.config import DetectorConfig, detector_config_file
from sharpmask.field_docs import field_docs


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--config", action="config", help="YAML file with the run's settings, or the name of a shipped one"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the output folder")
    parser.add_class_arguments(DetectorConfig, as_group=False)
    docs = settings()
    for action in parser._actions:
        if action.dest in docs:
            action.help = docs[action.dest].replace("%", "%%")


def settings() -> dict[str, str]:
    """What is given as FIELD=VALUE, with its meaning."""
    return field_docs(DetectorConfig)


def rewrite(arguments: list[str]) -> list[str]:
    """FIELD=VALUE -> --FIELD=VALUE, and the name of a shipped config -> its path."""
    rewritten = [f"--{a}" if re.match(r"[a-z][\w.]*=", a) else a for a in arguments]
    for i, argument in enumerate(rewritten):
        if argument.startswith("--config="):
            rewritten[i] = f"--config={detector_config_file(argument.removeprefix('--config='))}"
        elif i and rewritten[i - 1] == "--config":
            rewritten[i] = detector_config_file(argument)
    return rewritten


def detector_config(args: Namespace) -> DetectorConfig:
    """The settings that were parsed, as the dataclass that training takes."""
    values: dict[str, Any] = args.as_dict()
    for option in ("config", "resume"):
        values.pop(option, None)
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return DetectorConfig(**values)


def run(args: Namespace) -> int:
    from sharpmask.detection.train import train_detector

    path = train_detector(detector_config(args), resume=args.resume)
    print(f"trained detector: {path}")
    return 0
