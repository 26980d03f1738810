"""A small data set in the small layout, and tiny models in the place of all of the table."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny import TINY

from sharpmask.checkpoints.store import save_network
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import SPECS


@pytest.fixture(scope="session")
def data(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos to train on and two others to measure on."""
    folder = tmp_path_factory.mktemp("data") / "two-shapes"
    whole = json.loads((shapes / "instances.json").read_text())
    for part, ids in (("train", {1, 2, 3, 4}), ("val", {5, 6})):
        (folder / part).mkdir(parents=True)
        for i in ids:
            shutil.copy(shapes / f"{i}.png", folder / part)
        content = {
            **whole,
            "images": [image for image in whole["images"] if image["id"] in ids],
            "annotations": [a for a in whole["annotations"] if a["image_id"] in ids],
        }
        (folder / f"instances_{part}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row of the table small."""
    for name, spec in TINY.items():
        monkeypatch.setitem(SPECS, name, spec)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of untrained tiny models: a light SharpMask, a ResNet and a VGG."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    torch.manual_seed(1)
    for name in ("sharpmask-lite0", "deepmask-resnet50", "deepmask-vgg"):
        files[name] = folder / f"{name}.safetensors"
        save_network(build_network(TINY[name]), files[name], dtype=torch.float32)
    return files
