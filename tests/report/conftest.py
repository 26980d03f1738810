"""A small scene."""

from pathlib import Path

import pytest
from report_scenes import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Three photos. a.png: both objects found, the second by rank 2; b.png: one of two found, the other met with IoU
    .5 only; c.png: its object has no proposal."""
    scene = Scene(tmp_path)
    a = scene.photo("a.png", (100, 120), [(10, 10, 40, 40), (70, 50, 40, 40)])
    b = scene.photo("b.png", (100, 120), [(5, 5, 30, 30), (60, 20, 40, 40)])
    scene.photo("c.png", (60, 80), [(20, 20, 20, 20)])
    scene.propose(a, (10, 10, 40, 40), 0.9)
    scene.propose(a, (70, 50, 40, 36), 0.8)
    scene.propose(a, (12, 12, 20, 20), 0.7)
    scene.propose(b, (5, 5, 30, 30), 0.6)
    scene.propose(b, (60, 20, 20, 40), 0.5)
    scene.save()
    return scene
