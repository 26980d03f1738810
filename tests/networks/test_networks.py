"""Structure of the networks, for every row of the table: published sizes, dense = patch, plain = refactored."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sharpmask.errors import ConfigError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.heads import PooledEncoder
from sharpmask.networks.layers import count_parameters, crop_windows
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import SPECS, ModelSpec, get_spec
from sharpmask.training.config import StageConfig
from sharpmask.training.stages import DeepMaskStage, SharpMaskStage, Stage

Shrink = Callable[[ModelSpec], ModelSpec]

# The published models are ResNet-50 rows over again, and so are those for Caffe's weights, of which one will do.
ROWS = pytest.mark.parametrize(
    "name",
    sorted(name for name in SPECS if not name.endswith(("-fair", "-caffe")) or name == "sharpmask-resnet50-caffe"),
)


def unbuilt(name: str) -> DeepMask | SharpMask:
    """The network of a row at its full size, without memory for its weights."""
    with torch.device("meta"):
        return build_network(get_spec(name)).eval()


def randomised(network: nn.Module) -> nn.Module:
    """Biases and affines away from 0 and 1, so that a mistake with one of them shows."""
    for name, tensor in network.state_dict().items():
        if tensor.ndim == 1:
            tensor.copy_(torch.rand_like(tensor) * 0.2 + (0.9 if name.endswith("scale") else -0.05))
    return network.eval()


def test_published_parameter_counts() -> None:
    network = unbuilt("sharpmask-resnet50")
    assert count_parameters(network.deepmask) == 17_363_713
    assert count_parameters(network.deepmask.trunk) == 8_543_296
    assert count_parameters(network.deepmask.encoder) == 6_685_312
    assert count_parameters(network.deepmask.mask_head) == 1_608_768
    assert count_parameters(network.deepmask.score_head) == 526_337
    assert count_parameters(network.refinement) == 2_750_535
    assert count_parameters(network.refinement.horizontal) == 1_090_466
    assert count_parameters(network.refinement.start) + count_parameters(network.refinement.vertical) == 1_660_050
    assert count_parameters(network.refinement.output) == 19


def test_sizes_of_the_original_deepmask() -> None:
    network = unbuilt("deepmask-vgg")
    assert count_parameters(network.trunk) == 9_220_480  # the convolutions of VGG-A
    assert network.encoder.encode.in_features == 512 * 14 * 14
    assert count_parameters(network.mask_head) == 513 * 56 * 56
    assert network.score_encoder is not None and network.score_encoder.encode.in_features == 512 * 7 * 7
    assert count_parameters(network.score_head) == 513 * 1024 + 1025


def test_heads_share_more_and_more() -> None:
    """The same mask branch in A, B and C, and a score branch that gets smaller from head to head."""
    heads = [unbuilt(f"deepmask-resnet50{head}") for head in ("-head-original", "-head-a", "-head-b", "")]
    original, *others = [count_parameters(n.encoder) + count_parameters(n.mask_head) for n in heads]
    assert set(others) == {6_685_312 + 1_608_768} and original > others[0]
    scores = [
        count_parameters(n.score_head) + (count_parameters(n.score_encoder) if n.score_encoder else 0) for n in heads
    ]
    assert scores[0] == scores[1] > scores[2] > scores[3] == 526_337


@pytest.mark.parametrize(("k", "widths"), [(4, [4, 2, 1, 1, 1]), (32, [32, 16, 8, 4, 2]), (64, [64, 32, 16, 8, 4])])
def test_capacity_schedules(k: int, widths: list[int]) -> None:
    spec = get_spec("sharpmask-lite0" if k == 32 else f"sharpmask-lite0-k{k}")
    for name, expected in ((spec.name, widths), (f"sharpmask-lite0-k{k}-constant", [k] * 5)):
        refinement = unbuilt(name).refinement
        assert [net.merge.in_channels for net in refinement.vertical] == expected[:-1]
        assert [net.merge.out_channels for net in refinement.vertical] == expected[1:]
        assert [net.merge.out_channels for net in refinement.horizontal] == expected[1:]
        assert refinement.output.in_channels == expected[-1]


@ROWS
def test_patch_output_shapes(name: str, small: Shrink) -> None:
    """Of the row itself, without computing anything, and of the small row in numbers."""
    for network in (unbuilt(name), build_network(small(get_spec(name))).eval()):
        spec = network.spec
        side = spec.patch_size + 2 * spec.context
        with torch.inference_mode():
            output = network(torch.rand(2, 3, side, side, device=next(network.parameters()).device))
        mask_side = spec.mask_side if spec.refinement is None else spec.patch_size
        if spec.name == "sharpmask-fast":
            mask_side //= 2  # one refinement module less
        assert output.mask_logits.shape == (2, mask_side, mask_side)
        assert output.score_logits.shape == (2,)


@ROWS
def test_gradients_reach_every_trainable_parameter(name: str, small: Shrink) -> None:
    """In training as it is: stage 1 the DeepMask, stage 2 what refines it and nothing else."""
    network = build_network(small(get_spec(name))).train()
    stages: list[Stage] = [DeepMaskStage(StageConfig(), network.spec)]
    if network.spec.refinement is not None:
        stages.append(SharpMaskStage(StageConfig(), network.spec))
    side = network.spec.patch_size + 2 * network.spec.context
    named = {id(parameter): parameter_name for parameter_name, parameter in network.named_parameters()}
    covered = set()
    for stage in stages:
        network.zero_grad()
        output = stage.forward(network, torch.rand(8, 3, side, side))
        loss = output.mask_logits.square().mean()
        if stage.name == "deepmask":
            loss = loss + output.score_logits.square().mean()
        loss.backward()
        trained = {named[id(item.parameter)] for item in stage.trained(network)}
        reached = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        assert reached == trained, stage.name
        covered |= trained
    assert covered == set(named.values())


# Cells beyond a window that trunk and horizontal nets see, rounded up.
REACH = {"resnet50": 13, "vgg_a": 8, "efficientnet_lite0": 15, "efficientnet_lite2": 21}


@ROWS
def test_dense_cell_equals_patch_of_its_window(name: str, small: Shrink) -> None:
    """With more context than the receptive field reaches, a window is the same cut out or seen in the whole image."""
    spec = small(get_spec(name))
    # Few channels of random biases may be zero everywhere, which would prove nothing; many take time.
    spec = dataclasses.replace(spec, refinement_width=32 if spec.schedule == "halved" else 8)
    network = randomised(build_network(spec).double())
    stride, reach = spec.stride, REACH[spec.trunk]
    context = stride * reach
    row, col, more = 2, 1, (3, 2)  # the window, and how far the image is larger than its patch, in cells
    side = spec.patch_size + 2 * context
    image = torch.rand(1, 3, side + stride * more[0], side + stride * more[1], dtype=torch.float64)
    cells = torch.tensor([[reach + row, reach + col], [reach + row, reach + col + 1]])
    with torch.inference_mode():
        dense = network.dense(image)
        assert dense.score_logits.shape[1:] == tuple((n - spec.patch_size) // stride + 1 for n in image.shape[2:])
        assert dense.encodings.shape[2:] == dense.score_logits.shape[1:]
        expected = network(image[..., stride * row :, stride * col :][..., :side, :side])
        masks = network.decode(dense, torch.zeros(2, dtype=torch.int64), *cells.T)
        scores = dense.score_logits[0, *cells.T]
    torch.testing.assert_close(scores[:1], expected.score_logits, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(masks[:1], expected.mask_logits, rtol=1e-9, atol=1e-9)
    # The neighbour is another window: the test would notice an offset of one cell.
    assert not torch.allclose(scores[1:], expected.score_logits, rtol=1e-6)
    assert not torch.allclose(masks[1:], expected.mask_logits, rtol=1e-6)


@pytest.mark.parametrize("cells", [2, 3, 4, 5])
def test_pooled_score_branch_of_every_window(cells: int, tiny_spec: ModelSpec) -> None:
    """All windows at once, at even and odd places, as each of them pooled alone."""
    branch = PooledEncoder(dataclasses.replace(tiny_spec, patch_size=16 * cells), 6).double()
    features = torch.rand(2, 6, cells + 4, cells + 3, dtype=torch.float64)
    with torch.inference_mode():
        together = branch(features)
        assert together.shape == (2, 32, 5, 4)
        for row, col in itertools.product(range(5), range(4)):
            alone = branch(features[..., row : row + cells, col : col + cells])
            torch.testing.assert_close(together[..., row, col], alone.flatten(1), rtol=1e-12, atol=1e-12)


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


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"upsampling": "bilinear"},
        {"schedule": "constant"},
        {"horizontal": False},
        {"vertical": False},
        {"levels": 3, "vertical": False, "schedule": "constant"},
    ],
    ids=str,
)
def test_plain_and_refactored_refinement_agree(tiny_spec: ModelSpec, changes: dict[str, Any]) -> None:
    spec = dataclasses.replace(tiny_spec, **changes)
    refactored = randomised(SharpMask(spec).double())
    plain = SharpMask(dataclasses.replace(spec, refinement="plain")).double().eval()
    plain.load_state_dict(refactored.state_dict())
    patches = torch.rand(3, 3, 96, 96, dtype=torch.float64)
    with torch.inference_mode():
        a, b = refactored(patches).mask_logits, plain(patches).mask_logits
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert a.std() > 0


@pytest.mark.parametrize("size", [(64, 80), (160, 176)], ids=str)
def test_plain_and_refactored_agree_on_every_window_of_an_image(tiny_spec: ModelSpec, size: tuple[int, int]) -> None:
    """Also at the image's edge, and where the image is smaller than a window with all that its nets see."""
    refactored = randomised(SharpMask(tiny_spec).double())
    plain = SharpMask(dataclasses.replace(tiny_spec, refinement="plain")).double().eval()
    plain.load_state_dict(refactored.state_dict())
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    with torch.inference_mode():
        one, two = refactored.dense(images), plain.dense(images)
        cells = torch.cartesian_prod(*(torch.arange(count) for count in one.score_logits.shape)).T
        a, b = refactored.decode(one, *cells), plain.decode(two, *cells)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    assert a.std() > 0
    # The plain form starts from the trunk's features: nothing of the refinement has run over the whole image.
    assert [skip.shape[1] for skip in two.skips] == list(reversed(plain.deepmask.trunk.channels))


def test_multiscale_is_the_mean_of_independent_predictions(tiny_spec: ModelSpec) -> None:
    network = randomised(SharpMask(dataclasses.replace(tiny_spec, refinement="multiscale")))
    encoding = torch.rand(2, 32)
    skips = [torch.full((2, 1, 4 * step, 4 * step), float(step)) for step in network.refinement.steps]
    with torch.inference_mode():
        coarse = network.refinement.coarse(encoding)[:, None]
        enlarged = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")[:, 0]
        torch.testing.assert_close(network.refinement(encoding, skips), (enlarged + 2 + 4 + 8) / 4)


def test_windows_are_whole_numbers_of_cells() -> None:
    with pytest.raises(ConfigError, match="patch_size 120 is no multiple of the stride 16"):
        ModelSpec(name="x", patch_size=120)
    assert ModelSpec(name="x", patch_size=120, levels=3).grid_side == 15
    with pytest.raises(ConfigError, match="context 8"):
        ModelSpec(name="x", context=8)
    with pytest.raises(ConfigError, match="levels must be 3 or 4, not 5"):
        ModelSpec(name="x", levels=5)


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


def test_the_papers_own_names() -> None:
    for name, row in (("deepmask", "deepmask-resnet50"), ("sharpmask", "sharpmask-resnet50")):
        assert dataclasses.replace(get_spec(name), name=row) == get_spec(row)
    spec = get_spec("deepmask")
    assert (spec.trunk, spec.patch_size, spec.levels, spec.features, spec.head) == ("resnet50", 160, 4, 128, "C")


def test_every_resnet_row_has_one_for_caffes_weights() -> None:
    assert get_spec("deepmask-w112-p3-d21-f128-caffe").stride_on == "1x1"
    for name in ("deepmask-resnet50-head-a", "multiscale-resnet50", "sharpmask-resnet50-k8-constant"):
        assert dataclasses.replace(get_spec(f"{name}-caffe"), name=name, stride_on="3x3") == get_spec(name)
    assert not any(name.endswith("-caffe") and spec.trunk != "resnet50" for name, spec in SPECS.items())


def test_unknown_model_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no model named 'sharpmusk'.*sharpmask-resnet50"):
        get_spec("sharpmusk")
