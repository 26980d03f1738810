"""Structure of the networks, for every row of the table: published sizes, dense = patch, plain = refactored."""

import dataclasses

import pytest
import torch
from torch import nn

from sharpmask.errors import ConfigError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.layers import count_parameters
from sharpmask.networks.sharpmask import SharpMask, build_network, crop_windows
from sharpmask.networks.specs import SPECS, ModelSpec, get_spec

# The published models are ResNet-50 rows over again.
ROWS = pytest.mark.parametrize("name", sorted(name for name in SPECS if not name.endswith("-fair")))


def randomised(network: nn.Module) -> nn.Module:
    """Biases and affines away from 0 and 1, so that a mistake with one of them shows."""
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1:
            tensor.copy_(torch.rand_like(tensor) * 0.2 + (0.9 if name.endswith("scale") else -0.1))
    return network.eval()


def test_published_parameter_counts() -> None:
    network = SharpMask(get_spec("sharpmask-resnet50"))
    assert count_parameters(network.deepmask) == 17_363_713
    assert count_parameters(network.deepmask.trunk) == 8_543_296
    assert count_parameters(network.deepmask.encoder) == 6_685_312
    assert count_parameters(network.deepmask.mask_head) == 1_608_768
    assert count_parameters(network.deepmask.score_head) == 526_337
    assert count_parameters(network.refinement) == 2_750_535
    assert count_parameters(network.refinement.horizontal) == 1_090_466
    assert count_parameters(network.refinement.start) + count_parameters(network.refinement.vertical) == 1_660_050
    assert count_parameters(network.refinement.output) == 19


@ROWS
def test_patch_output_shapes(name: str) -> None:
    spec = get_spec(name)
    network = build_network(spec).eval()
    side = spec.patch_size + 2 * spec.context
    with torch.inference_mode():
        output = network(torch.rand(2, 3, side, side))
    mask_side = spec.mask_side if spec.refinement is None else spec.patch_size
    assert output.mask_logits.shape == (2, mask_side, mask_side)
    assert output.score_logits.shape == (2,)


@ROWS
def test_gradients_reach_every_trainable_parameter(name: str) -> None:
    spec = get_spec(name)
    network = build_network(spec).train()
    side = spec.patch_size + 2 * spec.context
    output = network(torch.rand(2, 3, side, side))
    (output.mask_logits.mean() + output.score_logits.mean()).backward()
    unreached = {n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    if spec.refinement is not None:
        # The coarse mask head is DeepMask's own output and no part of the refined mask.
        assert unreached == {"deepmask.mask_head.linear.weight", "deepmask.mask_head.linear.bias"}
    else:
        assert not unreached


@pytest.mark.parametrize(
    ("name", "reach"),
    [("sharpmask-resnet50", 12), ("sharpmask-resnet50-caffe", 12), ("sharpmask-lite0", 14), ("sharpmask-lite2", 17)],
)
def test_dense_cell_equals_patch_of_its_window(name: str, reach: int) -> None:
    """With more context than the receptive field reaches, a window is the same cut out or seen in the whole image."""
    spec = dataclasses.replace(get_spec(name), patch_size=32, mask_side=8, encoding=16, score_hidden=8, features=8)
    if spec.trunk == "resnet50":
        spec = dataclasses.replace(spec, trunk_width=4)
    network = randomised(build_network(spec).double())
    context = 16 * reach  # farther than trunk and horizontal nets see beyond a window
    image = torch.rand(1, 3, 2 * context + 64, 2 * context + 48, dtype=torch.float64)
    row, col = 1, 1  # of the patch's windows counted in cells from `context`
    with torch.inference_mode():
        dense = network.dense(image)
        cell_row, cell_col = context // 16 + row, context // 16 + col
        top, left = 16 * cell_row - context, 16 * cell_col - context
        side = 32 + 2 * context
        patch = image[..., top : top + side, left : left + side]
        assert patch.shape[-2:] == (side, side)
        expected = network(patch)
        index = torch.tensor([0])
        mask = network.decode(dense, index, torch.tensor([cell_row]), torch.tensor([cell_col]))
    torch.testing.assert_close(
        dense.score_logits[0, cell_row, cell_col], expected.score_logits[0], rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(mask, expected.mask_logits, rtol=1e-9, atol=1e-9)
    # The neighbour is another window: the test would notice an offset of one cell.
    assert not torch.allclose(dense.score_logits[0, cell_row, cell_col + 1], expected.score_logits[0], rtol=1e-6)


def test_dense_grid_size_and_batches(tiny_spec: ModelSpec) -> None:
    network = randomised(build_network(tiny_spec))
    images = torch.rand(2, 3, 128, 160)
    with torch.inference_mode():
        dense = network.dense(images)
        assert dense.score_logits.shape == (2, 128 // 16 - 4 + 1, 160 // 16 - 4 + 1)
        assert dense.encodings.shape == (2, 32, 5, 7)
        assert [skip.shape[-2:] for skip in dense.skips] == [(8, 10), (16, 20), (32, 40), (64, 80)]
        chosen = torch.tensor([0, 1, 1]), torch.tensor([0, 4, 2]), torch.tensor([6, 0, 3])
        masks = network.decode(dense, *chosen)
        single = [
            network.decode(network.dense(images[b : b + 1]), torch.tensor([0]), r[None], c[None])
            for b, r, c in zip(*chosen, strict=True)
        ]
    torch.testing.assert_close(masks, torch.cat(single), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
def test_plain_and_refactored_refinement_agree(tiny_spec: ModelSpec, upsampling: str) -> None:
    refactored = randomised(SharpMask(dataclasses.replace(tiny_spec, upsampling=upsampling)).double())
    plain = SharpMask(dataclasses.replace(tiny_spec, upsampling=upsampling, refinement="plain")).double().eval()
    plain.load_state_dict(refactored.state_dict())
    patches = torch.rand(3, 3, 96, 96, dtype=torch.float64)
    with torch.inference_mode():
        a, b = refactored(patches).mask_logits, plain(patches).mask_logits
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert a.std() > 0


def test_crop_windows() -> None:
    x = torch.arange(2 * 3 * 12 * 16).view(2, 3, 12, 16)
    crops = crop_windows(x, torch.tensor([1, 0]), torch.tensor([2, 0]), torch.tensor([1, 5]), step=2, side=6)
    assert torch.equal(crops[0], x[1, :, 4:10, 2:8])
    assert torch.equal(crops[1], x[0, :, 0:6, 10:16])


def test_crop_first_changes_the_border_only_through_context(tiny_spec: ModelSpec) -> None:
    network = randomised(SharpMask(tiny_spec))
    patches = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        after = network(patches).mask_logits
        network.crop_first = True
        before = network(patches).mask_logits
    assert not torch.equal(after, before)


def test_deepmask_of_sharpmask_is_the_same_network(tiny_spec: ModelSpec) -> None:
    sharp = randomised(SharpMask(tiny_spec))
    deep = DeepMask(tiny_spec).eval()
    deep.load_state_dict(sharp.deepmask.state_dict())
    patches = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(deep(patches).score_logits, sharp(patches).score_logits)


def test_unknown_model_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no model named 'sharpmusk'.*sharpmask-resnet50"):
        get_spec("sharpmusk")
