"""The benchmark: what it counts is known, and its report holds together."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sharpmask import runtimes
from sharpmask.benchmark import peak
from sharpmask.benchmark import run as bench_run
from sharpmask.benchmark.candidates import Choice, parse_choices, prepare_all
from sharpmask.benchmark.report import share_of_peak
from sharpmask.benchmark.stages import STAGES, dense_total, split_dense, stage_flops
from sharpmask.cli.main import main
from sharpmask.errors import ConfigError
from sharpmask.networks.sharpmask import build_network
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals.clock import Clock


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(autouse=True)
def _small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "_SIDES", {"cpu": (64,)})
    monkeypatch.setattr(bench_run, "matrix_peaks", partial(peak.matrix_peaks, seconds=0))


def test_operations_are_those_of_the_layers(tiny_spec: ModelSpec) -> None:
    """Refinement grows with the windows, the dense run with the scales; the 10x10 layer alone by hand."""
    options = {"tile_pixels": 2**22}
    one = stage_flops(tiny_spec, (64, 64), [0], windows=10, **options)
    two = stage_flops(tiny_spec, (64, 64), [0, 0], windows=20, **options)
    assert two["trunk"] == 2 * one["trunk"] and two["refinement"] == pytest.approx(2 * one["refinement"])
    assert set(one) == {"trunk", "score", "horizontal", "refinement"} and min(one.values()) > 0
    windows = 5 * 5  # 64 + 64 px of padding, windows of 64 every 16
    reduce = 2 * 8 * 8 * 4 * 16 * 8
    encode = 2 * windows * 8 * 4 * 4 * 32
    score = 2 * windows * (32 * 16 + 16)
    assert one["score"] == reduce + encode + score
    assert dense_total(one)["dense"] == one["trunk"] + one["score"] + one["horizontal"]


def test_choices() -> None:
    assert parse_choices("eager,torch:bf16") == [Choice("eager", "fp32"), Choice("torch", "bf16")]
    assert [str(choice) for choice in parse_choices("torch")] == ["torch fp32", "torch bf16"]
    with pytest.raises(ConfigError, match="abacus"):
        parse_choices("eager,abacus")


def test_the_command_writes_figures_and_a_chart(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, chart = tmp_path / "bench.json", tmp_path / "bench.png"
    arguments = ["--runtimes", "eager", "--rounds", "2", "--top", "20", "--scales", "-1", "--no-memory"]
    files = ["--json", str(out), "--chart", str(chart), "--device", "cpu"]
    assert main(["bench", str(photo), *arguments, *files]) == 0
    found = json.loads(out.read_text())
    (choice,) = found["choices"]
    assert set(choice["stages"]) <= set(STAGES) and {"trunk", "score", "horizontal"} <= set(choice["stages"])
    assert "dense" not in choice["stages"]
    assert len(choice["rounds"]) == 2 and 0 < sum(choice["stages"].values()) < 2 * choice["seconds"]["high"]
    assert found["peaks"]["fp32"] > 0 and choice["share_of_peak"] > 0
    assert all(rate > 0 for rate in (choice["images_per_second"]["single"], choice["images_per_second"]["folder"]))
    with Image.open(chart) as picture:
        assert picture.size[0] > 500
    assert "eager fp32" in capsys.readouterr().out


def test_stages_of_a_runtime_made_of_pytorch(tiny_spec: ModelSpec) -> None:
    """The tuned PyTorch is told apart like the network itself; other runtimes do the dense run in one piece."""
    images = torch.rand(1, 3, 96, 128)
    for runtime, package in (("torch", "torch"), ("onnx", "onnxruntime"), ("openvino", "openvino")):
        pytest.importorskip(package)
        clock = Clock(torch.device("cpu"))
        network = runtimes.prepare(build_network(tiny_spec), runtime=runtime, device="cpu")
        with split_dense(network, clock) as named:
            clock.start()
            network.dense(images)
            clock.lap("dense")
        expected = {"trunk", "score", "horizontal"} if runtime == "torch" else {"dense"}
        assert set(named(clock.seconds)) == expected


def test_int8_of_a_model_that_was_not_quantized_is_told_and_the_rest_measured() -> None:
    pytest.importorskip("onnxruntime")
    choices = parse_choices("eager,onnx")
    ready, failed = prepare_all("sharpmask-lite0", choices, torch.device("cpu"))
    assert [str(choice) for choice in ready] == ["eager fp32", "onnx fp32"]
    assert ["sharpmask quantize" in why for why in failed.values()] == [True]


def test_shares_and_ratios(photo: Path) -> None:
    settings = bench_run.Settings(
        [photo], "sharpmask-lite0", [Choice("eager", "fp32")], {"scales": [-1]}, "cpu", 1, memory=False
    )
    report = bench_run.run(settings)
    report.peaks = {"fp32": 2 * sum(report.measured[0].flops.values()) / report.measured[0].seconds}
    assert share_of_peak(report, report.measured[0]) == pytest.approx(0.5)
    # A precision that the processor only imitates has a rate that runtimes exceed: a share of it would mean nothing.
    imitated = dataclasses.replace(report.measured[0], choice=Choice("onnx", "int8"))
    report.peaks["int8"] = report.peaks["fp32"] / 100
    assert share_of_peak(report, imitated) is None
    report.peaks["int8"] = report.peaks["fp32"] * 2
    assert share_of_peak(report, imitated) == pytest.approx(0.25)


def test_bad_options_are_refused_before_anything_is_measured(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (["--rounds", "0"], "rounds 0"),
        (["--annotations", "a.json"], "both"),
        (["--yardstick", str(tmp_path / "none.py")], "no such file"),
        (["--runtimes", "eager:int8"], "no runtime"),
    ):
        assert main(["bench", str(photo), "--device", "cpu", *arguments]) == 2
        assert words in capsys.readouterr().err
