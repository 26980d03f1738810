"""8-bit arithmetic: near the network's numbers, and kept only where it costs little."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sharpmask import quantize as quantizing
from sharpmask.checkpoints import load_network, save_network
from sharpmask.cli.main import main
from sharpmask.errors import ConfigError, ModelError
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import SPECS, ModelSpec
from sharpmask.runtimes import prepare
from sharpmask.runtimes.choice import accurate
from sharpmask.runtimes.int8 import Calibration, Range, convolutions, watched
from sharpmask.runtimes.parts import Parts
from sharpmask.runtimes.torch_runtime import torch_prepared

pytest.importorskip("onnxruntime")
RUNTIMES = ("onnx", "openvino")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("kind", ["sharpmask-resnet50", "sharpmask-lite0", "deepmask-vgg"])
def test_numbers_are_near(kind: str, runtime: str, small: Callable[[ModelSpec], ModelSpec]) -> None:
    """As near as 8 bits allow, and not nearer: otherwise nothing would have been quantized."""
    pytest.importorskip(runtime if runtime == "openvino" else "onnxruntime")
    spec = small(SPECS[kind])
    network = build_network(spec).eval()
    parts = Parts(network)
    images = torch.rand(1, 3, spec.patch_size + 4 * spec.stride, spec.patch_size + 6 * spec.stride)
    places = torch.zeros(3, dtype=torch.int64), torch.tensor([0, 4, 2]), torch.tensor([6, 1, 3])
    with torch.inference_mode():
        expected = network.dense(images)
        masks = network.decode(expected, *places)
        with watched(parts) as ranges:
            reference = torch_prepared(parts, "fp32", torch.device("cpu"))
            reference.decode(reference.dense(images), *places)
    assert ranges and set(ranges) <= set(convolutions(parts))
    network.int8 = Calibration(ranges, 1).to_json()
    prepared = prepare(network, runtime=runtime, precision="int8")
    found = prepared.dense(images)
    for ours, theirs in (
        (found.score_logits, expected.score_logits),
        (found.encodings, expected.encodings),
        (prepared.decode(found, *places), masks),
    ):
        error = (ours - theirs).norm() / theirs.norm()
        assert 1e-5 < error < 0.15


def test_ranges_include_zero_and_grow() -> None:
    seen = Range()
    seen.see(torch.tensor([1.0, 2.0]), torch.tensor([-3.0]))
    seen.see(torch.tensor([-1.0]), torch.tensor([5.0]))
    assert seen == Range(-1, 2, -3, 5)


def test_notes_are_kept_in_the_file(tiny_spec: ModelSpec, tmp_path: Path) -> None:
    network = build_network(tiny_spec)
    calibration = Calibration({"a": Range(0, 1, -2, 3)}, 7, -0.001)
    save_network(network, tmp_path / "m.safetensors", notes={"int8": calibration.to_json()})
    loaded = load_network(tmp_path / "m.safetensors")
    assert Calibration.of(loaded) == calibration
    assert Calibration.of(network) is None
    for damaged in ("{", "{}", '{"ranges": {"a": [1, 2, 3, 4, 5]}, "photos": 1, "change": null}', "[]"):
        loaded.int8 = damaged
        with pytest.raises(ModelError, match="quantize it again"):
            Calibration.of(loaded)


def test_only_quantized_models_run_in_int8(tiny_spec: ModelSpec) -> None:
    with pytest.raises(ConfigError, match="sharpmask quantize"):
        prepare(build_network(tiny_spec), runtime="onnx", precision="int8")


def test_auto_takes_int8_only_where_it_was_measured_to_cost_little(tiny_spec: ModelSpec) -> None:
    network = build_network(tiny_spec)
    assert "onnx:int8" not in accurate(network)
    for change, taken in ((None, False), (-0.003, False), (-0.001, True), (0.004, True)):
        network.int8 = Calibration({}, 1, change).to_json()
        assert ("onnx:int8" in accurate(network)) == taken


@pytest.fixture
def model(tiny_spec: ModelSpec, tmp_path: Path) -> Path:
    save_network(build_network(tiny_spec), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_command(model: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "int8.safetensors"
    command = ["quantize", str(model), "--images", str(shapes), "--output", str(out), "--runtime", "onnx"]
    assert main([*command, "--photos", "2"]) == 0
    assert "ranges of 2 photos, AR not measured" in capsys.readouterr().out
    before, after = load_network(model), load_network(out)
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    calibration = Calibration.of(after)
    assert calibration is not None and calibration.change is None
    photo = str(next(shapes.glob("*.png")))
    proposing = ["propose", photo, "--model", str(out), "--runtime", "onnx:int8", "--top", "5", "--no-overlay"]
    assert main([*proposing, "--output", str(tmp_path / "found")]) == 0
    assert json.loads((tmp_path / "found/proposals.json").read_text())


@pytest.mark.parametrize(("change", "kept"), [(-0.0049, True), (-0.0051, False), (0.02, True)])
def test_the_model_is_kept_if_it_loses_little(
    change: float, kept: bool, model: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizing, "_change", lambda *_: change)
    out = tmp_path / "int8.safetensors"
    command = ["quantize", str(model), "--images", str(shapes), "--output", str(out), "--photos", "1"]
    status = main([*command, "--annotations", str(shapes / "instances.json"), "--runtime", "onnx"])
    assert (status, out.is_file()) == ((0, True) if kept else (1, False))
    assert sorted(path.name for path in tmp_path.iterdir()) == (["int8.safetensors"] if kept else []) + [model.name]
    if kept:
        calibration = Calibration.of(load_network(out))
        assert calibration is not None and calibration.change == change


def test_ar_is_measured_against_fp32(shapes: Path, tmp_path: Path) -> None:
    """The same network loses nothing, one without what was learnt loses what the other found."""
    network = load_network("sharpmask-fast")
    unlearnt = build_network(network.spec).eval()
    messages: list[str] = []
    one = json.loads((shapes / "instances.json").read_text())
    one["images"] = one["images"][:1]
    one["annotations"] = [a for a in one["annotations"] if a["image_id"] == one["images"][0]["id"]]
    (tmp_path / "one.json").write_text(json.dumps(one))
    arguments = (tmp_path / "one.json", shapes, 100, messages.append)
    assert quantizing._change(network, network, *arguments) == 0
    assert quantizing._change(network, unlearnt, *arguments) < -quantizing.LIMIT
    assert np.any(["AR@1000" in message for message in messages])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--photos", "0"], "photos 0"),
        (["--output", "out.onnx"], ".safetensors"),
        (["--images", "nowhere"], "nowhere"),
        (["--annotations", "none.json"], "none.json"),
    ],
)
def test_bad_options(
    arguments: list[str], words: str, model: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8.safetensors"
    command = ["quantize", str(model), "--images", str(shapes), "--output", str(out)]
    assert main([*command, *arguments]) in (1, 2)
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [model.name]
