"""Every runtime gives the numbers of the network it was made from, for any image size and number of windows."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sharpmask.checkpoints import load_network
from sharpmask.errors import ConfigError, MissingExtraError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.layers import FrozenAffineConv2d, PaddedConv2d
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import SPECS, ModelSpec
from sharpmask.proposals.proposer import Proposer
from sharpmask.runtimes import RUNTIMES, cpu, prepare
from sharpmask.runtimes.cells import CellConv2d, DoubledConv2d, to_cells, to_pixels, twice
from sharpmask.runtimes.folding import fold
from sharpmask.runtimes.onnx_builder import OnnxBuilder

PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
# Together they have every kind of layer: trunks, heads, refinements, paddings of 1, 2 and 3 pixels, odd windows.
KINDS = (
    "sharpmask-resnet50-caffe",
    "sharpmask-w112-p3-d21",
    "deepmask-vgg",
    "deepmask-lite0-head-a",
    "deepmask-lite0-head-b",
    "sharpmask-lite0",
    "sharpmask-fast",
    "sharpmask-resnet50-plain",
    "sharpmask-lite0-no-vertical",
    "sharpmask-lite0-no-horizontal",
    "multiscale-lite0",
)


def random_network(spec: ModelSpec) -> DeepMask | SharpMask:
    """With affines that are no identities."""
    network = build_network(spec).eval()
    for module in network.modules():
        if isinstance(module, FrozenAffineConv2d):
            module.scale.uniform_(0.5, 1.5)
            module.shift.normal_()
    return network


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Up to rounding, measured on the largest number."""
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_those_of_the_network(kind: str, runtime: str, small: Callable[[ModelSpec], ModelSpec]) -> None:
    pytest.importorskip(PACKAGES[runtime])
    spec = small(SPECS[kind])
    network = random_network(spec)
    prepared = prepare(network, runtime=runtime, device="cpu")
    assert (prepared.runtime, prepared.precision, prepared.spec.patch_size) == (runtime, "fp32", spec.patch_size)
    side, stride = spec.patch_size, spec.stride
    for extra, batch, windows in (((3, 5), 1, 4), ((0, 0), 1, 1), ((5, 2), 2, 7)):
        images = torch.rand(batch, 3, side + extra[0] * stride, side + extra[1] * stride)
        rows, cols = (torch.randint(0, limit + 1, (windows,)) for limit in extra)
        index = torch.randint(0, batch, (windows,))
        with torch.inference_mode():
            expected, masks = network.dense(images), network.decode(network.dense(images), index, rows, cols)
            found = prepared.dense(images)
        assert_close(found.score_logits, expected.score_logits)
        assert_close(found.encodings, expected.encodings)
        if spec.refinement != "plain":  # whose skips are the trunk's features
            assert len(found.skips) == len(expected.skips)
            for ours, theirs in zip(found.skips, expected.skips, strict=True):
                assert_close(ours, theirs if ours.shape == theirs.shape else to_cells(theirs))
        assert_close(prepared.decode(found, index, rows, cols), masks)


def test_results_of_an_earlier_call_stay(tiny_spec: ModelSpec) -> None:
    """Runtimes may write into the same memory again."""
    for runtime, package in PACKAGES.items():
        pytest.importorskip(package)
        prepared = prepare(build_network(tiny_spec), runtime=runtime, device="cpu")
        first = prepared.dense(torch.rand(1, 3, 128, 96))
        before = first.encodings.clone()
        prepared.dense(torch.rand(1, 3, 128, 96))
        assert torch.equal(first.encodings, before)


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
def test_doubling_within_a_convolution(upsampling: str) -> None:
    conv = PaddedConv2d(3, 5, 3)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 3, 4, 6)
    align = {} if upsampling == "nearest" else {"align_corners": False}
    with torch.inference_mode():
        expected = conv(torch.nn.functional.interpolate(x, scale_factor=2, mode=upsampling, **align))
        doubled = DoubledConv2d(conv, upsampling)
        torch.testing.assert_close(to_pixels(doubled(x)), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(to_pixels(twice(doubled)(to_cells(x)), 4), expected, rtol=0, atol=1e-5)


def test_a_convolution_of_cells_is_that_of_their_pixels() -> None:
    conv = PaddedConv2d(3, 5, 3)
    torch.nn.init.normal_(conv.bias)
    for size in ((2, 3, 4, 6), (1, 3, 2, 2)):
        x = torch.randn(size)
        with torch.inference_mode():
            torch.testing.assert_close(to_pixels(CellConv2d(conv)(to_cells(x))), conv(x), rtol=0, atol=1e-5)


def test_cells_hold_the_rows_of_their_pixels() -> None:
    x = torch.arange(16).view(1, 1, 4, 4)
    cells = to_cells(x)
    assert cells.shape == (1, 4, 2, 2) and cells[0, :, 0, 1].tolist() == [2, 3, 6, 7]
    for channels, side in ((1, 2), (3, 2), (2, 4)):
        for dtype in (torch.float32, torch.bfloat16):
            x = torch.randn(2, channels, 4, 8).to(dtype)
            assert torch.equal(to_pixels(to_cells(x, side), side), x)


def test_the_network_itself_is_left_alone(tiny_spec: ModelSpec) -> None:
    network = build_network(dataclasses.replace(tiny_spec, refinement="plain"))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    folded = fold(network)
    assert network.spec.refinement == "plain" and folded.spec.refinement == "refactored"
    assert not any(isinstance(module, FrozenAffineConv2d) for module in folded.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_bf16_is_near_where_the_processor_has_it(tiny_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch computes in bf16 on any processor, only slowly, so that the path can be tried anywhere."""
    monkeypatch.setattr("sharpmask.runtimes.torch_runtime.has_bf16", lambda: True)
    network = random_network(tiny_spec)
    prepared = prepare(network, precision="bf16", device="cpu")
    images = torch.rand(1, 3, 96, 128)
    with torch.inference_mode():
        expected, found = network.dense(images), prepared.dense(images)
        places = torch.zeros(2, dtype=torch.int64), torch.tensor([0, 2]), torch.tensor([1, 3])
        masks, ours = network.decode(expected, *places), prepared.decode(found, *places)
    assert found.encodings.dtype == torch.bfloat16 and found.score_logits.dtype == ours.dtype == torch.float32
    for a, b in ((found.score_logits, expected.score_logits), (ours, masks)):
        error = (a - b).abs().max() / b.abs().max()
        assert 0 < error < 0.1


@contextmanager
def _without(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, name, None)
        yield


def test_what_cannot_be_done_is_told(tiny_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network(tiny_spec)
    monkeypatch.setattr("sharpmask.runtimes.torch_runtime.has_bf16", lambda: False)
    monkeypatch.setattr("sharpmask.runtimes.openvino_runtime.has_bf16", lambda: False)
    for choice, words in (
        ({"runtime": "abacus"}, "no runtime 'abacus'"),
        ({"runtime": "torch", "precision": "int4"}, "torch:int4"),
        ({"runtime": "torch", "precision": "bf16", "device": "cpu"}, "bf16"),
        ({"runtime": "onnx", "device": "meta"}, "CPU"),
    ):
        if "onnx" in choice.values():
            pytest.importorskip("onnxruntime")
        with pytest.raises(ConfigError, match=words):
            prepare(network, **choice)
    pytest.importorskip("openvino")
    with pytest.raises(ConfigError, match="bf16"):
        prepare(network, runtime="openvino", precision="bf16")


@pytest.mark.parametrize(("runtime", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_missing_extras_are_named(
    runtime: str, package: str, tiny_spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_network(tiny_spec)
    with _without(package, monkeypatch), pytest.raises(MissingExtraError, match=rf"sharpmask\[{runtime}\]"):
        prepare(network, runtime=runtime)
    with _without("onnx", monkeypatch), pytest.raises(MissingExtraError, match=r"sharpmask\[onnx\]"):
        OnnxBuilder()


def test_processors_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, bf16, int8 in (
        ({"avx2"}, False, False),
        ({"avx512_vnni"}, False, True),
        ({"avx512_bf16", "avx_vnni"}, True, True),
    ):
        monkeypatch.setattr(cpu, "_flags", lambda flags=flags: frozenset(flags))
        assert (cpu.has_bf16(), cpu.has_int8()) == (bf16, int8)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_bundled_model_finds_the_same(runtime: str, examples: Path) -> None:
    pytest.importorskip(PACKAGES[runtime])
    network = load_network()
    with Image.open(examples / "riders.jpg") as photo:
        pixels = np.asarray(photo.convert("RGB").resize((320, 240)))
    options = {"top": 60, "scales": [-1, 0], "device": "cpu"}
    expected = Proposer(network, **options).propose(pixels)
    found = Proposer(prepare(network, runtime=runtime, device="cpu"), **options).propose(pixels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    places = {tuple(window): place for place, window in enumerate(found.windows.tolist())}
    assert set(places) == {tuple(window) for window in expected.windows.tolist()}
    order = [places[tuple(window)] for window in expected.windows.tolist()]
    ours, theirs = found.masks[order], expected.masks
    ious = (ours & theirs).sum(axis=(1, 2)) / (ours | theirs).sum(axis=(1, 2))
    assert ious.min() > 0.99
