"""The detectors' structure: every row works, parts switch, gradients reach everything, one region is Fast R-CNN."""

import dataclasses

import pytest
import torch
from detectors import tiny

from sharpmask.detection.networks import FastRCNN, MultiPathNet, build_detector, rescaled_size
from sharpmask.detection.specs import DETECTORS, FOVEAL, INTEGRAL, DetectorSpec, get_detector_spec
from sharpmask.errors import ConfigError
from sharpmask.networks.specs import ModelSpec
from sharpmask.networks.trunk import build_trunk, convert_batchnorm

BOXES = torch.tensor([[5.0, 10.0, 60.0, 90.0], [0.0, 0.0, 150.0, 100.0], [70.0, 20.0, 100.0, 40.0]])


@pytest.mark.parametrize("name", DETECTORS)
def test_every_row(name: str) -> None:
    network = build_detector(tiny(name), 4).eval()
    features, scale = network.features(torch.rand(3, 100, 150))
    output = network(features, BOXES, scale)
    thresholds = len(network.spec.thresholds)
    assert output.class_logits.shape == (thresholds, 3, 5) and output.deltas.shape == (3, 4, 4)
    torch.testing.assert_close(output.class_prob.sum(dim=1), torch.ones(3))
    assert network.correct(BOXES, output.deltas, scale.size).shape == (3, 4, 4)


@pytest.mark.parametrize(
    "name",
    [
        "fast-rcnn-resnet50-light",
        "fast-rcnn-vgg16",
        "multipathnet-lite0",
        "multipathnet-resnet50-light",
        "fast-rcnn-resnet50-c4",
        "fast-rcnn-lite0-c4",
        "fast-rcnn-lite2-c4",
    ],
)
def test_gradients_reach_every_weight(name: str) -> None:
    network = build_detector(tiny(name, dropout=0.0), 3)
    features, scale = network.features(torch.rand(3, 100, 150))
    output = network(features, BOXES, scale)
    (output.class_logits.square().sum() + output.deltas.square().sum() * 1e4).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_box_regression_comes_from_the_first_region_only() -> None:
    network = build_detector(tiny("multipathnet-lite0", dropout=0.0), 3)
    features, scale = network.features(torch.rand(3, 100, 150))
    network(features, BOXES, scale).deltas.sum().backward()
    reached = [any(p.grad is not None for p in head.parameters()) for head in network.heads]
    assert reached == [True, False, False, False]


@pytest.mark.parametrize("training", [False, True])
def test_one_region_without_skips_and_integral_loss_is_fast_rcnn(training: bool) -> None:
    """The same weights give the same numbers, bit for bit, dropout and all."""
    fast = FastRCNN(tiny("fast-rcnn-lite0"), 3)
    spec = tiny("multipathnet-lite0", regions=(1.0,), skips=False, thresholds=(50,))
    multi = MultiPathNet(spec, 3)
    renamed = {"head.": "heads.0.", "classifier.": "classifiers.0."}
    state = {}
    for name, tensor in fast.state_dict().items():
        old = next((old for old in renamed if name.startswith(old)), None)
        state[name if old is None else renamed[old] + name.removeprefix(old)] = tensor
    multi.load_state_dict(state)
    image = torch.rand(3, 100, 150)
    outputs = []
    for network in (fast.train(training), multi.train(training)):
        torch.manual_seed(4)
        outputs.append(network(*_with_boxes(network, image)))
    assert torch.equal(outputs[0].class_logits, outputs[1].class_logits)
    assert torch.equal(outputs[0].deltas, outputs[1].deltas)


def _with_boxes(network: FastRCNN | MultiPathNet, image: torch.Tensor) -> tuple:
    features, scale = network.features(image)
    return features, torch.cat([BOXES, torch.tensor([[-4.0, -9.0, 170.0, 120.0]])]), scale


def test_thin_features_are_pooled_features_brought_to_fewer_channels() -> None:
    """A 1x1 convolution and RoIAlign are linear: which comes first changes nothing but the work."""
    network = build_detector(tiny("fast-rcnn-resnet50-light", pooled_channels=6), 2).eval()
    image = torch.rand(3, 100, 150)
    features, scale = network.features(image)
    assert network.channels[-1] == 6 and network.head.fc6.in_features == 6 * 3 * 3
    pooled = network._pool(features[-1], 1, BOXES, scale)
    x = network.head(network.thin(pooled))
    torch.testing.assert_close(network(features, BOXES, scale).class_logits[0], network.classifier(x))


def test_c5_takes_a_region_as_the_classifier_takes_a_photo() -> None:
    """A box around the whole photo, one cell to a bin: the classifier's own features of the photo, averaged."""
    network = build_detector(tiny("fast-rcnn-lite0-c4", short_side=96, long_side=96, pooled_side=6), 2).eval()
    image = torch.rand(3, 96, 96)
    features, scale = network.features(image)
    assert features[-1].shape[2:] == (6, 6)
    flat = features[-1] * 0 + features[-1].mean(dim=(2, 3), keepdim=True)  # which bilinear samples leave as it is
    x = network.head(flat)
    torch.testing.assert_close(x[:, : 20 * 8], network.head.c5(flat).mean(dim=(2, 3)))
    output = network((*features[:-1], flat), torch.tensor([[0.0, 0.0, 96.0, 96.0]]), scale)
    torch.testing.assert_close(output.class_logits[0], network.classifier(x))
    torch.testing.assert_close(output.deltas[0].flatten(), network.regressor(x)[0])


def test_c5_is_told_where_in_the_region_something_is() -> None:
    """Cells that change places leave their average as it is, and yet are told apart."""
    head = build_detector(tiny("fast-rcnn-lite0-c4"), 2).eval().head
    cells = torch.rand(1, head.c5.out_channels, 2, 2)
    head.c5.forward = lambda x: x
    here, there = head(cells), head(cells.flip(3))
    torch.testing.assert_close(here[:, : 20 * 8], there[:, : 20 * 8])
    assert not torch.allclose(here[:, 20 * 8 :], there[:, 20 * 8 :])


def test_multipathnet_can_have_a_c5_for_each_region() -> None:
    spec = tiny("fast-rcnn-lite0-c4", multipath=True, regions=(1.0, 2.0), skips=True, thresholds=(50, 70))
    network = build_detector(spec, 2).eval()
    output = network(*_with_boxes(network, torch.rand(3, 100, 150)))
    assert output.class_logits.shape == (2, 4, 3) and network.heads[0].out_features == 20 * 8 + 12


def test_wide_regions_see_what_surrounds_the_box() -> None:
    """A change outside a box that no convolution carries into it changes nothing for the 1x region."""
    torch.manual_seed(1)
    network = build_detector(tiny("multipathnet-lite0", short_side=640, long_side=640, trunk_width=4), 2).eval()
    image = torch.rand(3, 640, 640)
    changed = image.clone()
    changed[:, 600:] = 0
    box = torch.tensor([[200.0, 200.0, 400.0, 400.0]])
    outputs = [network(*_one(network, picture, box)) for picture in (image, changed)]
    torch.testing.assert_close(outputs[0].deltas, outputs[1].deltas, rtol=0, atol=1e-6)
    assert not torch.allclose(outputs[0].class_logits, outputs[1].class_logits, rtol=0, atol=1e-6)


def _one(network: FastRCNN | MultiPathNet, image: torch.Tensor, boxes: torch.Tensor) -> tuple:
    features, scale = network.features(image)
    return features, boxes, scale


def test_the_table_has_each_part_alone_switched_off() -> None:
    full = DETECTORS["multipathnet-lite0"]
    assert (full.regions, full.skips, full.thresholds) == (FOVEAL, True, INTEGRAL)
    assert dataclasses.replace(DETECTORS["multipathnet-lite0-no-foveal"], name=full.name, regions=FOVEAL) == full
    assert dataclasses.replace(DETECTORS["multipathnet-lite0-no-skips"], name=full.name, skips=True) == full
    assert dataclasses.replace(DETECTORS["multipathnet-lite0-no-integral"], name=full.name, thresholds=INTEGRAL) == full


@pytest.mark.parametrize(
    "fields",
    [
        {"multipath": True, "regions": (1.5, 1.0)},
        {"multipath": True, "thresholds": ()},
        {"multipath": True, "thresholds": (40,)},
        {"skips": True},
        {"regions": (1.0, 2.0)},
        {"head": "c5", "pooled_side": 7},
        {"head": "c5", "pooled_side": 14, "pooled_channels": 64},
    ],
)
def test_rows_that_make_no_sense_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="detector 'x'"):
        DetectorSpec(name="x", trunk="resnet50", **fields)  # type: ignore[arg-type]


def test_an_unknown_name_is_told_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="fast-rcnn-vgg16"):
        get_detector_spec("yolo")


def test_sizes_are_multiples_of_the_stride_and_keep_to_the_limits() -> None:
    spec = DETECTORS["fast-rcnn-vgg16"]
    assert rescaled_size((480, 640), spec) == (608, 800)
    assert rescaled_size((300, 1200), spec) == (256, 1008)  # the long side decides
    assert rescaled_size((3, 2000), spec) == (16, 1008)


def test_vgg16_has_torchvisions_names_and_thirteen_convolutions() -> None:
    trunk = build_trunk(ModelSpec(name="v", trunk="vgg_16", trunk_width=8))
    places = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]
    assert [name for name in trunk.state_dict() if name.endswith("weight")] == [f"features.{i}.weight" for i in places]
    assert [f.shape[1:] for f in trunk(torch.rand(1, 3, 64, 96))] == [
        (16, 32, 48),
        (32, 16, 24),
        (64, 8, 12),
        (64, 4, 6),
    ]
    assert convert_batchnorm(trunk.state_dict(), trunk).keys() == trunk.state_dict().keys()
