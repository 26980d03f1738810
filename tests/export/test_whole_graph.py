"""The whole graph on tiny random networks: the windows, scores and masks that the package's own parts give."""

import dataclasses
from collections.abc import Callable
from typing import Any

import export_reference as reference
import numpy as np
import pytest
import torch
from torch import nn

from sharpmask.errors import ConfigError
from sharpmask.export.pipeline import Settings, build_pipeline
from sharpmask.networks.layers import FrozenAffineConv2d
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import SPECS, ModelSpec

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed")

SCALES = (-1.0, -0.5, 0.0)
TOP = 40


def network_of(spec: ModelSpec) -> Any:
    """Random weights whose scores differ from window to window."""
    torch.manual_seed(3)
    network = build_network(spec).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, FrozenAffineConv2d):
                module.scale.uniform_(0.8, 1.4)
                module.shift.normal_(0, 0.2)
        network.deepmask.score_head.score.weight.normal_(0, 1)
    return network


def session_of(model: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check(network: nn.Module, results: list[np.ndarray], image: np.ndarray, top: int = TOP) -> None:
    scores, boxes, windows, mask_logits = results
    expected_scores, expected_windows, expected_logits = reference.propose(network, image, SCALES, top)
    assert len(scores) == len(boxes) == len(expected_scores)
    assert (np.diff(scores) <= 0).all()
    np.testing.assert_allclose(scores, expected_scores, atol=2e-4)
    # Windows that score alike may change places.
    near = np.abs(np.diff(expected_scores)) < 1e-4
    alone = ~(np.append(near, True) | np.append(False, near))
    assert alone.sum() >= min(1, len(scores) // 4)
    np.testing.assert_allclose(windows[alone], expected_windows[alone], atol=2e-3)
    np.testing.assert_allclose(mask_logits[alone], expected_logits[alone], rtol=1e-2, atol=2e-2)


@pytest.fixture(scope="module")
def lite() -> tuple[Any, Any]:
    """SharpMask with the bundled model's structure, and its graph."""
    network = network_of(
        dataclasses.replace(
            SPECS["sharpmask-lite0"],
            trunk_width=16,
            patch_size=64,
            features=8,
            encoding=32,
            mask_side=20,
            score_hidden=16,
            refinement_width=16,
            horizontal_width=8,
        )
    )
    return network, build_pipeline(network, Settings("tiny", SCALES, TOP))


@pytest.fixture(scope="module")
def lite_session(lite: tuple[Any, Any]) -> Any:
    return session_of(lite[1])


def picture(size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(size)
    coarse = rng.integers(0, 256, (1 + size[0] // 16, 1 + size[1] // 16, 3)).repeat(16, 0).repeat(16, 1)
    return (coarse[: size[0], : size[1]] * 0.8 + rng.integers(0, 50, (*size, 3))).astype(np.uint8)


@pytest.mark.parametrize("size", [(200, 300), (129, 97), (40, 50), (1, 1), (5, 500), (333, 7), (64, 64)])
def test_any_size(lite: tuple[Any, Any], lite_session: Any, size: tuple[int, int]) -> None:
    """Photos that are larger than a window, smaller, odd, one pixel, a line."""
    image = picture(size)
    check(lite[0], lite_session.run(None, {"image": image}), image)


def test_fewer_windows_than_asked_for(lite_session: Any) -> None:
    scores = lite_session.run(["scores"], {"image": picture((10, 10))})[0]
    assert len(scores) == 3 < TOP  # one cell at each scale


def test_equal_scores_keep_the_order_of_scale_row_and_column(lite: tuple[Any, Any], lite_session: Any) -> None:
    """Everywhere the same grey as the padding: all windows score the same."""
    image = np.full((96, 128, 3), 127, np.uint8)
    windows = lite_session.run(["windows"], {"image": image})[0]
    expected = reference.propose(lite[0], image, SCALES, TOP)
    scores = lite_session.run(["scores"], {"image": image})[0]
    ties = scores[:-1] == scores[1:]
    sides = windows[:, 2] - windows[:, 0]
    for i in np.flatnonzero(ties):
        assert (-sides[i], windows[i, 1], windows[i, 0]) < (-sides[i + 1], windows[i + 1, 1], windows[i + 1, 0])
    np.testing.assert_allclose(scores, expected[0], atol=1e-4)


def test_it_describes_itself(lite: tuple[Any, Any], lite_session: Any) -> None:
    notes = lite_session.get_modelmeta().custom_metadata_map
    assert notes["model"] == "tiny" and notes["architecture"] == "sharpmask-lite0"
    assert notes["scales"] == "[-1.0, -0.5, 0.0]" and notes["top"] == "40" and notes["stride"] == "16"
    assert notes["patch_size"] == "64" and notes["licence"] == "Apache-2.0"
    assert float(notes["threshold_logit"]) == pytest.approx(np.log(0.2 / 0.8))
    assert [(item.name, item.shape) for item in lite_session.get_inputs()] == [("image", ["height", "width", 3])]
    assert [item.name for item in lite_session.get_outputs()] == ["scores", "boxes", "windows", "mask_logits"]


def test_openvino(lite: tuple[Any, Any]) -> None:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    core = openvino.Core()
    model = core.read_model(lite[1].SerializeToString())
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in ((200, 300), (40, 50), (5, 200)):
        image = picture(size)
        results = compiled({"image": image})
        check(lite[0], [results[name] for name in ("scores", "boxes", "windows", "mask_logits")], image)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("deepmask-vgg", {}),  # the original head, no refinement
        ("sharpmask-w160-p4-d8-vgg", {"refinement": "plain", "head": "A", "levels": 3, "patch_size": 24}),
    ],
)
def test_other_structures(name: str, changes: dict[str, Any], small: Callable[[ModelSpec], ModelSpec]) -> None:
    spec = dataclasses.replace(small(SPECS[name]), **changes)
    network = network_of(spec)
    session = session_of(build_pipeline(network, Settings(name, SCALES, TOP)))
    for size in ((70, 90), (20, 50)):
        image = picture(size)
        check(network, session.run(None, {"image": image}), image)


def test_the_multiscale_baseline_is_refused(small: Callable[[ModelSpec], ModelSpec]) -> None:
    network = build_network(small(SPECS["multiscale-lite0"]))
    with pytest.raises(ConfigError, match="my-model: the multiscale baseline cannot be exported"):
        build_pipeline(network, Settings("my-model", SCALES, TOP))
