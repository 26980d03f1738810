"""What the tests of detection share."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from detector_runs import write_shapes

from sharpmask.detection.specs import DETECTORS


@pytest.fixture(scope="session", autouse=True)
def _small_layers() -> Iterator[None]:
    """The light detectors with fewer hidden units: their fully connected layers are most of a step."""
    with pytest.MonkeyPatch.context() as patch:
        for name, spec in list(DETECTORS.items()):
            if "lite0" in name:
                patch.setitem(DETECTORS, name, dataclasses.replace(spec, hidden=64))
        yield


@pytest.fixture(scope="session")
def two_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos of discs and squares, their annotations and proposals."""
    return write_shapes(tmp_path_factory.mktemp("two-kinds"))
