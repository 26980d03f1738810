"""Every shipped config is a run that could start."""

from pathlib import Path

import pytest
import yaml

import sharpmask.training.config as config_module
from sharpmask.cli.main import build_parser
from sharpmask.cli.train import train_config
from sharpmask.networks.specs import SPECS

CONFIGS = sorted((Path(config_module.__file__).parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_config(path: Path) -> None:
    required = ["--annotations=a.json", "--images=b", "--output=c"]
    config = train_config(build_parser("train").parse_args([f"--config={path}", *required]))
    written = yaml.safe_load(path.read_text())
    assert SPECS[config.model].refinement is not None
    assert config.deepmask.steps == written["deepmask"]["steps"]
    assert config.sharpmask.learning_rate == written["sharpmask"]["learning_rate"]


def test_the_released_schedule_is_the_default() -> None:
    required = ["--annotations=a.json", "--images=b", "--output=c"]
    parser = build_parser("train")
    released = train_config(parser.parse_args([f"--config={next(p for p in CONFIGS if p.stem == 'coco')}", *required]))
    default = train_config(parser.parse_args(required))
    assert released.deepmask == default.deepmask
    assert released.sharpmask == default.sharpmask
