"""Train a detector, Fast R-CNN or MultiPathNet, on COCO-format data and proposals. Settings come from --config and from
FIELD=VALUE arguments. In images with "exhaustive": false only what lies near annotated objects is background."""

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from sharpmask.cli.settings import add_settings, rewrite_settings
from sharpmask.detection.config import DetectorConfig, detector_config_file
from sharpmask.field_docs import field_docs


def add_arguments(parser: ArgumentParser) -> None:
    add_settings(parser, DetectorConfig)


def settings() -> dict[str, str]:
    """What is given as FIELD=VALUE, with its meaning."""
    return field_docs(DetectorConfig)


def rewrite(arguments: list[str]) -> list[str]:
    """See `rewrite_settings`."""
    return rewrite_settings(arguments, detector_config_file)


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
