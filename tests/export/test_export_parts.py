"""The parts that are translated, beside the networks they were made from, and the boxes of masks beside pasted ones."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from sharpmask.export.network import DecodePart, DensePart, logit, mask_boxes, prepared, skip_steps
from sharpmask.networks.layers import FrozenAffineConv2d
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import SPECS, ModelSpec
from sharpmask.proposals.windows import paste_windows, rescaled_grid


def randomised(network: nn.Module) -> nn.Module:
    """With affines and biases that matter."""
    for module in network.modules():
        if isinstance(module, FrozenAffineConv2d):
            module.scale.uniform_(0.5, 1.5)
            module.shift.normal_(0, 0.3)
    return network.eval()


@pytest.mark.parametrize("name", [name for name in SPECS if "-k" not in name])
@torch.inference_mode()
def test_every_model_gives_the_same_numbers(name: str, small: Callable[[ModelSpec], ModelSpec]) -> None:
    network = randomised(build_network(small(SPECS[name])))
    spec = network.spec
    images = torch.rand(1, 3, spec.stride * (spec.grid_side + 2), spec.stride * (spec.grid_side + 1))
    expected = network.dense(images)
    copy = prepared(network)
    scores, encodings, *skips = DensePart(copy)(images)
    torch.testing.assert_close(scores[:, 0], expected.score_logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(encodings, expected.encodings, rtol=1e-3, atol=1e-4)
    rows, cols = torch.tensor([0, 2, 1]), torch.tensor([1, 0, 1])
    dense = expected._replace(encodings=encodings, skips=tuple(skips))
    crops = copy.crop(dense, torch.zeros_like(rows), rows, cols)
    assert [part.shape[-1] for part in crops[1:]] == [spec.grid_side * step for step in skip_steps(copy)]
    logits, _ = DecodePart(copy, 0.2)(torch.rand(3, 4), torch.tensor([9.0, 9.0]), crops)
    masks = network.decode(expected, torch.zeros_like(rows), rows, cols)
    torch.testing.assert_close(logits, masks, rtol=1e-3, atol=1e-4)


def test_the_network_itself_stays_as_it_was(tiny_spec: ModelSpec) -> None:
    network = build_network(dataclasses.replace(tiny_spec, refinement="plain")).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    prepared(network)
    assert network.spec.refinement == "plain"
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("exponent", [-2.5, -1.0, -0.5, 0.0, 0.5, 1.0])
def test_boxes_are_those_of_the_pasted_masks(exponent: float) -> None:
    """Ellipses in windows anywhere, some of them beyond the image: known masks, pasted by the proposer's own code."""
    grid = rescaled_grid((211, 307), exponent, patch_size=160, stride=16)
    rng = np.random.default_rng(5)
    rows, cols = (rng.integers(0, count, 80) for count in grid.cells)
    place = torch.arange(40) + 0.5
    middle = torch.from_numpy(rng.uniform(8, 32, (2, 80, 1, 1)))
    radius = torch.from_numpy(rng.uniform(3, 15, (2, 80, 1, 1)))
    distance = ((place[:, None] - middle[0]) / radius[0]) ** 2 + ((place - middle[1]) / radius[1]) ** 2
    logits = (8 * (1 - distance)).float() + logit(0.2)
    logits[:2] = -5
    windows = torch.from_numpy(grid.windows(rows, cols)).float()
    boxes = mask_boxes(logits, windows, torch.tensor([211.0, 307.0]), logit(0.2)).numpy()
    pasted = paste_windows(logits, grid, rows, cols, logit(0.2))
    assert (boxes[:2] == 0).all()
    filled = pasted.areas > 25
    assert filled.sum() >= 20
    assert abs(boxes - pasted.boxes)[filled].max() <= 1
    if exponent <= 0:
        assert (boxes == pasted.boxes)[filled].mean() > 0.9
