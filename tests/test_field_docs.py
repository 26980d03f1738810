"""Texts of dataclass fields, and that the command line shows them."""

import dataclasses

import pytest

from sharpmask.cli.main import main
from sharpmask.detection.config import DetectorConfig
from sharpmask.field_docs import field_docs
from sharpmask.training.config import TrainConfig


@dataclasses.dataclass
class Inner:
    """Not the text of a field."""

    size: int = 1
    """pixels,
    of the shorter side"""
    plain: int = 2


@dataclasses.dataclass
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    """the inner one"""
    name: str = "a"
    """what it is called"""

    def method(self) -> None:
        """Not of a field either."""


@dataclasses.dataclass
class Derived(Inner):
    size: int = 3
    plain: int = 4
    """any number"""


def test_inherited_fields() -> None:
    assert field_docs(Derived) == {"size": "pixels, of the shorter side", "plain": "any number"}


def test_nested_fields() -> None:
    assert field_docs(Outer) == {
        "inner": "the inner one",
        "inner.size": "pixels, of the shorter side",
        "name": "what it is called",
    }


@pytest.mark.parametrize(
    ("command", "settings", "some"),
    [
        ("train", TrainConfig, ("deepmask.weight_decay", "sharpmask.augmentation.copy_paste", "val_images")),
        ("train-detector", DetectorConfig, ("weight_decay", "milestones", "val_images", "classes", "cache_gigabytes")),
    ],
)
def test_every_setting_of_training_is_explained_in_its_help(
    command: str, settings: type, some: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    docs = field_docs(settings)
    assert {field.name for field in dataclasses.fields(settings)} <= set(docs)
    with pytest.raises(SystemExit):
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in some:
        assert docs[name] in text, name
    assert "<class" not in text
    assert ("deepmask: stage 1" in text) == (settings is TrainConfig)
