"""What the tests of detection share."""

from pathlib import Path

import pytest
from detector_runs import write_shapes


@pytest.fixture(scope="session")
def two_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos of discs and squares, their annotations and proposals."""
    return write_shapes(tmp_path_factory.mktemp("two-kinds"))
