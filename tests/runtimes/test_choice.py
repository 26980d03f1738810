"""The automatic choice: measured once, kept, measured again when something changes; and the options that lead there."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sharpmask
from sharpmask.bulk.model import ModelFactory
from sharpmask.checkpoints import save_network
from sharpmask.cli.main import main
from sharpmask.errors import ConfigError
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals.cleaning import Cleaning
from sharpmask.runtimes import Prepared, choice, parse_runtime, with_runtime
from sharpmask.web.engine import make_propose
from sharpmask.web.jobs import Stopped
from sharpmask.web.schemas import ProposalSettings


@pytest.fixture
def network(tiny_spec: ModelSpec) -> SharpMask:
    return SharpMask(tiny_spec).eval()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """Two runtimes (both PyTorch in truth), of which the second is the faster; lists what was measured."""
    calls: list[list[str]] = []

    def seconds(candidates: dict[str, Any]) -> dict[str, float]:
        calls.append(list(candidates))
        return {name: 0.25 if name.startswith("onnx") else 0.5 for name in candidates}

    monkeypatch.setenv("SHARPMASK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "PACKAGES", {"torch": ("torch",), "onnx": ("torch",)})
    monkeypatch.setattr(choice, "photo_seconds", seconds)
    real = choice.prepare
    monkeypatch.setattr(choice, "prepare", lambda network, **options: real(network, **{**options, "runtime": "torch"}))
    return calls


def test_names() -> None:
    assert parse_runtime("onnx") == ("onnx", "fp32")
    assert parse_runtime("openvino:int8") == ("openvino", "int8")
    for wrong in ("abacus", "torch:int8", ":fp32", ""):
        with pytest.raises(ConfigError, match="openvino:bf16"):
            parse_runtime(wrong)


def test_the_fastest_is_measured_once(network: SharpMask, measured: list[list[str]], tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with_runtime(network, "auto", "cpu", say=said.append)
    assert measured == [["torch:fp32", "onnx:fp32"]]
    assert "onnx:fp32 0.25 s, torch:fp32 0.50 s" in said[0] and "onnx:fp32" in said[1]
    kept = json.loads((tmp_path / "cache/runtimes.json").read_text())
    assert list(kept.values()) == ["onnx:fp32"]


def test_it_is_measured_again_when_something_changes(
    network: SharpMask, measured: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose() -> int:
        with_runtime(network, "auto", "cpu", say=lambda text: None)
        return len(measured)

    assert choose() == choose() == 1
    monkeypatch.setattr(sharpmask, "__version__", "99")
    assert choose() == choose() == 2
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert choose() == choose() == 3
    file = tmp_path / "cache/runtimes.json"
    for damaged in ("{", "[1]", json.dumps({key: "abacus" for key in json.loads(file.read_text())})):
        before = len(measured)
        file.write_text(damaged)
        assert choose() == choose() == before + 1


def test_a_cache_that_cannot_be_written_costs_only_time(
    network: SharpMask, measured: list[list[str]], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    for _ in range(2):
        assert isinstance(with_runtime(network, "auto", "cpu", say=lambda text: None), Prepared)
    assert len(measured) == 2


def test_with_nothing_else_installed_it_is_pytorch(network: SharpMask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "PACKAGES", {"torch": ("torch",), "onnx": ("no_such_package",)})
    said: list[str] = []
    assert str(with_runtime(network, "auto", "cpu", say=said.append)) == "torch:fp32"
    assert "no other is installed" in said[0]


def test_seconds_are_those_of_a_photo(network: SharpMask) -> None:
    prepared = with_runtime(network, "torch", "cpu")
    seconds = choice.photo_seconds({"a": prepared, "b": prepared})
    assert set(seconds) == {"a", "b"} and min(seconds.values()) > 0


def test_the_tuned_network_is_the_default_and_the_network_itself_can_be_had(network: SharpMask) -> None:
    assert with_runtime(network, "eager") is network
    assert str(with_runtime(network, None, "cpu")) == "torch:fp32"


def test_every_way_in_takes_a_runtime(
    tiny_spec: ModelSpec, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, photo = str(tmp_path / "model.safetensors"), str(shapes / "1.png")
    save_network(build_network(tiny_spec), model)
    options: dict[str, Any] = {"top": 10, "device": "cpu"}
    expected = sharpmask.load(model, runtime="eager", **options).propose(photo)
    proposer = sharpmask.load(model, **options)
    assert isinstance(proposer.network, Prepared)
    np.testing.assert_allclose(proposer.propose(photo).scores, expected.scores, atol=1e-5)

    factory = ModelFactory.load(model, {"top": 10}, Cleaning(), "eager")
    assert factory.describe()["runtime"] == "eager"
    assert ModelFactory.load(model, {"top": 10}, Cleaning()).describe()["runtime"] == "torch"
    with pytest.raises(ConfigError, match="abacus"):
        ModelFactory.load(model, {}, Cleaning(), "abacus")
    pixels = np.full((60, 80, 3), 99, np.uint8)
    assert len(factory.make("cpu")(pixels).scores) == len(expected.scores)

    command = ["propose", photo, "--output", str(tmp_path), "--model", model, "--top", "10", "--device", "cpu"]
    assert main([*command, "--no-overlay", "--runtime", "torch"]) == 0
    capsys.readouterr()
    for wrong in (["--runtime", "abacus"], ["--runtime", "torch", "--compat", "torch7"]):
        assert main([*command, *wrong]) == 2
        assert "runtime" in capsys.readouterr().err


def test_the_server_gives_up_with_a_runtime_too(network: SharpMask) -> None:
    propose = make_propose(with_runtime(network, "torch", "cpu"), "cpu")
    pixels = np.zeros((90, 120, 3), np.uint8)
    assert len(propose(pixels, ProposalSettings(top=5), lambda: False).scores) <= 5
    with pytest.raises(Stopped):
        propose(pixels, ProposalSettings(top=5), lambda: True)
