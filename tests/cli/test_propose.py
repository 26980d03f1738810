"""`sharpmask propose`: options, exit statuses and messages."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sharpmask import checkpoints
from sharpmask.cli.main import main


class Spec(NamedTuple):
    patch_size: int = 160
    stride: int = 16


class Dense(NamedTuple):
    score_logits: Tensor
    encodings: Tensor
    skips: tuple[Tensor, ...]


class EverythingNetwork(nn.Module):
    """Every window scores the same and is wholly mask."""

    spec = Spec()

    def dense(self, images: Tensor) -> Dense:
        h, w = ((side - 160) // 16 + 1 for side in images.shape[2:])
        return Dense(torch.zeros(1, h, w), torch.zeros(1, 1, h, w), ())

    def decode(self, dense: Dense, batch_index: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        return torch.ones(len(rows), 56, 56)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names given to `load_network`, which returns the fake."""
    names: list[str] = []

    def load(name: str, *_: Any) -> EverythingNetwork:
        names.append(name)
        return EverythingNetwork()

    monkeypatch.setattr(checkpoints, "load_network", load)
    monkeypatch.setattr("sharpmask.runtimes.choice.DEFAULT_RUNTIME", "eager")  # no runtime can prepare the fake
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.fromarray(np.full((50, 70, 3), 80, np.uint8)).save(tmp_path / "in" / name)
    return tmp_path / "in"


def results(output: Path) -> list[dict[str, Any]]:
    return json.loads((output / "proposals.json").read_text())


def test_a_folder(loaded: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert main(["propose", str(folder), "--output", str(output), "--top", "7", "--device", "cpu"]) == 0
    assert len(results(output)) == 14
    assert (output / "a_overlay.png").exists() and (output / "images.json").exists()
    assert "14 proposals for 2 of 2 images" in capsys.readouterr().out
    assert loaded == [checkpoints.DEFAULT_MODEL]


@pytest.mark.parametrize(
    "scales", [["--scales", "-1,-0.5"], ["--scales=-1,-0.5"], ["--scales", "-1"], ["--scales", "-.5,0"]]
)
def test_scales_may_begin_with_a_minus(loaded: list[str], folder: Path, tmp_path: Path, scales: list[str]) -> None:
    output = tmp_path / "out"
    assert main(["propose", *scales, str(folder / "a.jpg"), "--output", str(output), "--no-overlay"]) == 0
    exponents = [float(part) for part in scales[-1].removeprefix("--scales=").split(",")]
    cells = sum((int(50 * 2**e + 0.5) // 16 + 1) * (int(70 * 2**e + 0.5) // 16 + 1) for e in exponents)
    assert len(results(output)) == cells
    assert not list(output.glob("*.png"))


def test_all_options(loaded: list[str], folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    annotations = tmp_path / "ann.json"
    annotations.write_text(json.dumps({"images": [{"id": 9, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}]}))
    options = "--model own.safetensors --top 50 --zoom 1 --threshold 0.3 --nms 0.9 --min-score 0.1 --min-area 10"
    options += " --max-area 3000 --device cpu --overlay --annotations"
    status = main(["propose", f"{folder}/*.jpg", "--output", str(output), *options.split(), str(annotations)])
    assert status == 0 and loaded == ["own.safetensors"]
    assert {entry["image_id"] for entry in results(output)} == {8, 9}
    assert len(list(output.glob("*.png"))) == 2


def test_a_truncated_file_gives_status_1(
    loaded: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    output = tmp_path / "out"
    assert main(["propose", str(folder), "--output", str(output)]) == 1
    message = capsys.readouterr().err
    assert "a.jpg" in message and "Traceback" not in message and "1 of 2 images failed" in message
    assert {entry["image_id"] for entry in results(output)} == {2}


@pytest.mark.parametrize(
    "options",
    [
        ["--scales", "x"],
        ["--scales", "99"],
        ["--zoom", "3"],
        ["--top", "0"],
        ["--top", "many"],
        ["--nms", "2"],
        ["--threshold", "0"],
        ["--device", "toaster"],
        ["--unknown"],
        ["no such file.jpg"],
        ["--track-iou", "0.5"],
        ["--track-gap", "3"],
        ["--containment-threshold", "0.5"],
        ["--compat", "torch7", "--stability-offset", "2"],
    ],
)
def test_bad_options_give_status_2(
    loaded: list[str], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    output = tmp_path / "out"
    try:
        status = main(["propose", str(folder), "--output", str(output), *options])
    except SystemExit as stop:  # the parser's own way to end
        status = stop.code
    assert status == 2
    assert not output.exists()
    assert capsys.readouterr().err.strip()


def test_the_folder_of_photos_takes_no_results(
    loaded: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.iterdir())
    assert main(["propose", str(folder), "--output", f"{folder}/../in"]) == 2
    assert "is a folder of inputs" in capsys.readouterr().err and sorted(folder.iterdir()) == before


def test_the_offset_of_the_stability_that_ranks(loaded: list[str], folder: Path, tmp_path: Path) -> None:
    found = []
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (90, 90, 3), dtype=np.uint8)).save(folder / "a.jpg")
    for options in ([], ["--stability-offset", "1"], ["--stability-offset", "4"]):
        assert main(["propose", str(folder / "a.jpg"), "--output", str(tmp_path), "--no-overlay", *options]) == 0
        found.append((tmp_path / "proposals.json").read_text())
    assert found[0] == found[1] != found[2]


def test_bad_output(loaded: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["propose", str(folder), "--output", str(folder / "a.jpg")]) == 2
    assert "a.jpg" in capsys.readouterr().err


def test_formats_and_cleaning(loaded: list[str], folder: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "out"
    options = "--format coco,cvat,yolo,label-map --partition --count 3 --min-stability 0.5 --max-border 1 --no-overlay"
    options += " --scales 0 --nms 0.9 --containment parts --max-aspect 9 --simplify 1"
    assert main(["propose", str(folder), "--output", str(output), *options.split()]) == 0
    names = sorted(path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file())
    assert names == [
        "cvat.xml",
        "images.json",
        "label_map/a.png",
        "label_map/b.png",
        "proposals.json",
        "yolo/data.yaml",
        "yolo/labels/a.txt",
        "yolo/labels/b.txt",
    ]
    assert "(coco, cvat, yolo, label-map)" in capsys.readouterr().out
    assert 1 <= len(results(output)) <= 6


def test_other_formats_in_place_of_coco(loaded: list[str], folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert main(["propose", str(folder), "--output", str(output), "--format", "geojson", "--no-overlay"]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["geojson"]


@pytest.mark.parametrize(
    "options",
    [["--format", "pdf"], ["--count", "0"], ["--containment", "x"], ["--simplify", "-1"], ["--max-border", "2"]],
)
def test_bad_cleaning_and_formats_give_status_2(
    loaded: list[str], folder: Path, tmp_path: Path, options: list[str]
) -> None:
    try:
        status = main(["propose", str(folder), "--output", str(tmp_path / "out"), *options])
    except SystemExit as stop:
        status = stop.code  # type: ignore[assignment]
    assert status == 2 and not (tmp_path / "out").exists()
