"""Plain against refactored: a difference that is none, and one that is."""

import dataclasses

import numpy as np
import torch

from sharpmask.networks.sharpmask import SharpMask
from sharpmask.networks.specs import ModelSpec
from sharpmask.reproduce.forms import largest_difference


def test_largest_difference(tiny_spec: ModelSpec) -> None:
    refactored = SharpMask(tiny_spec).eval()
    plain = SharpMask(dataclasses.replace(tiny_spec, refinement="plain")).eval()
    plain.load_state_dict(refactored.state_dict())
    photo = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    difference, largest, windows = largest_difference(plain, refactored, photo)
    assert windows == 6 * 7 and 0 <= difference < 1e-5 * max(1, largest)
    with torch.no_grad():
        plain.refinement.output.bias += 0.25
    difference, _, _ = largest_difference(plain, refactored, photo)
    assert abs(difference - 0.25) < 1e-4
