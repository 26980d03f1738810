"""The real proposer of a bulk run: what makes two runs the same, and what each process checks."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import sharpmask
from sharpmask.bulk.model import ModelFactory
from sharpmask.checkpoints import save_network
from sharpmask.errors import ConfigError, ModelError
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals.cleaning import Cleaning

PHOTO = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)


@pytest.fixture
def model(tmp_path: Path, tiny_spec: ModelSpec) -> Path:
    save_network(build_network(tiny_spec), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def test_it_proposes_as_the_proposer_does(model: Path) -> None:
    factory = ModelFactory.load(str(model), {"top": 9, "zoom": 1}, Cleaning(count=5))
    found = pickle.loads(pickle.dumps(factory)).make("cpu")(PHOTO)
    expected = sharpmask.load(str(model), top=9, zoom=1, device="cpu").propose(PHOTO)[:5]
    assert found.rles == expected.rles and np.array_equal(found.scores, expected.scores) and len(found) > 0


def test_what_decides_results_is_described(model: Path, tiny_spec: ModelSpec) -> None:
    plain = ModelFactory.load(str(model), {}, Cleaning()).describe()
    assert json.loads(json.dumps(plain)) == plain
    # A default that is given is no change, nor is the file's name.
    moved = model.rename(model.with_name("moved.safetensors"))
    assert ModelFactory.load(str(moved), {"top": 1000, "zoom": 0}, Cleaning()).describe() == plain
    changed = [
        ModelFactory.load(str(moved), {"top": 999}, Cleaning()),
        ModelFactory.load(str(moved), {}, Cleaning(nms=0.5)),
    ]
    torch.manual_seed(1)
    save_network(build_network(tiny_spec), moved)
    changed.append(ModelFactory.load(str(moved), {}, Cleaning()))
    differences = [{key for key, value in factory.describe().items() if plain[key] != value} for factory in changed]
    assert differences == [{"top"}, {"cleaning nms"}, {"weights"}]


def test_other_weights_on_another_machine_are_noticed(model: Path) -> None:
    factory = ModelFactory.load(str(model), {}, Cleaning())
    with pytest.raises(ModelError, match="not those on the machine of the driver"):
        dataclasses.replace(factory, weights="0" * 64).make("cpu")


def test_options_are_tried_before_anything_starts(model: Path) -> None:
    with pytest.raises(ConfigError, match="top 0"):
        ModelFactory.load(str(model), {"top": 0}, Cleaning())
    with pytest.raises(ModelError, match=r"none\.safetensors"):
        ModelFactory.load("none.safetensors", {}, Cleaning())
