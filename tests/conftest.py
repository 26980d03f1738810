"""What tests share: seeds, the folder of real data, tiny networks."""

import dataclasses
from pathlib import Path

import pytest
import torch

from sharpmask.networks.specs import SPECS, ModelSpec

SHARED = Path(__file__).parents[1].parent / "shared"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def shared() -> Path:
    """The folder of real photos, weights and recordings that lies beside the repository, where there is one."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared with real data, which is not here")
    return SHARED


@pytest.fixture
def tiny_spec() -> ModelSpec:
    """SharpMask at a sixteenth of the channels and 64-pixel windows: the real structure, in milliseconds."""
    return dataclasses.replace(
        SPECS["sharpmask-resnet50"],
        trunk_width=4,
        patch_size=64,
        features=8,
        encoding=32,
        mask_side=20,
        score_hidden=16,
        refinement_width=16,
        horizontal_width=8,
    )
