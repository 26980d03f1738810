"""The pyramid in the graph beside the proposer's: the same pixels, the same padding, the same cells."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sharpmask.export.builder import GraphBuilder
from sharpmask.export.pyramid import add_level, scale_fraction
from sharpmask.images import read_image
from sharpmask.networks.specs import SPECS
from sharpmask.proposals.pyramid import iterate_tiles
from sharpmask.proposals.windows import rescaled_grid

pytest.importorskip("onnx", reason="onnx is not installed")

SPEC = SPECS["sharpmask-resnet50"]
SCALES = (-2.5, -2.0, -1.5, -1.0, -0.5, 0.0, 0.3, 0.5, 1.0)


@pytest.fixture(scope="module")
def graph() -> bytes:
    """The padded images of all scales, and the number of their cells."""
    from onnx import TensorProto, helper

    b = GraphBuilder()
    size = (b.size("image", 0), b.size("image", 1))
    turned = b("Transpose", b("Cast", "image", to=TensorProto.FLOAT), perm=[1, 0, 2])
    outputs = []
    for i, exponent in enumerate(SCALES):
        level = add_level(b, turned, size, exponent, SPEC)
        outputs.append((level.images, f"images{i}", (TensorProto.FLOAT, [1, 3, f"h{i}", f"w{i}"])))
        outputs.append((b.vector(*level.cells, *level.padded_cells), f"cells{i}", (TensorProto.INT64, [4])))
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["height", "width", 3])
    return b.model("pyramid", [image], outputs, {}, "").SerializeToString()


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def run(request: pytest.FixtureRequest, graph: bytes) -> Any:
    runtime = pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    if request.param == "onnxruntime":
        session = runtime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        return lambda image: session.run(None, {"image": image})
    core = runtime.Core()
    compiled = core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: [compiled({"image": image})[i] for i in range(2 * len(SCALES))]


def check(run: Any, image: np.ndarray, *, share: float) -> None:
    results = run(image)
    tiles = iterate_tiles(image, SCALES, patch_size=160, stride=16, device=torch.device("cpu"), tile_pixels=2**40)
    for i, tile in enumerate(tiles):
        pixels, cells = results[2 * i] * 255, results[2 * i + 1]
        assert cells.tolist() == [*tile.grid.cells, *tile.grid.padded_cells]
        difference = abs(pixels - tile.images.numpy() * 255)
        assert difference.max() < 1.001, SCALES[i]
        assert (difference > 0.01).mean() <= share, SCALES[i]


@pytest.mark.parametrize("name", ["riders.jpg"])
def test_photo(run: Any, examples: Path, name: str) -> None:
    """Sums of floats end on the other side of a half now and then; all other pixels are equal."""
    check(run, read_image(examples / name), share=2e-4)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (77, 3), (143, 201), (160, 160)])
def test_odd_sizes(run: Any, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    check(run, rng.integers(0, 256, (*size, 3), dtype=np.uint8), share=1e-3)


def test_rescaled_sides() -> None:
    """The fraction gives the side that doubles give, and stays within 32 bits."""
    for exponent in (*np.arange(-8, 4.25, 0.25), 0.3):
        factor = scale_fraction(exponent)
        sides = np.arange(1, 16_001)
        doubled = 2 * sides * factor.numerator + factor.denominator
        assert doubled.max() < 2**31
        got = np.maximum(doubled // (2 * factor.denominator), 1)
        expected = np.maximum(1, (sides * 2.0**exponent + 0.5).astype(np.int64))
        assert (got != expected).mean() < (2e-4 if exponent <= 2.5 else 3e-3), exponent
        if exponent in (-2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1):
            np.testing.assert_array_equal(got[:5000], expected[:5000])
    assert rescaled_grid((480, 640), -0.5, patch_size=160, stride=16).rescaled_size == (339, 453)
