"""Whole studies of tiny models: what is written, what a killed run does, what is not done twice."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny import TINY

from sharpmask.checkpoints.store import read_safetensors
from sharpmask.cli.main import main
from sharpmask.networks.specs import SPECS
from sharpmask.reproduce import runner, studies

PROGRAM = Path(__file__).parent / "tiny.py"
pytestmark = pytest.mark.usefixtures("tiny_models")
pytest.importorskip("matplotlib")


def command(study: str, data: Path, output: Path, *more: str) -> list[str]:
    return ["reproduce", study, "--data", str(data), "--output", str(output), "--device", "cpu", *more]


SHORT = ("--steps", "2", "--photos", "1")


def lines(page: Path, heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    text = page.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("|")]


def records(file: Path) -> list[dict[str, str]]:
    with file.open() as opened:
        return list(csv.DictReader(opened))


def heads_command(data: Path, output: Path, weights: dict[str, Path]) -> list[str]:
    trunk = str(weights["sharpmask-lite0"])
    return command("heads", data, output, "--base", "lite0", "--trunk-weights", trunk, "--steps", "2", "--photos", "2")


@pytest.fixture(scope="module")
def heads(data: Path, weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of the heads study."""
    output = tmp_path_factory.mktemp("heads")
    with pytest.MonkeyPatch.context() as patch:
        for name, spec in TINY.items():
            patch.setitem(SPECS, name, spec)
        assert main(heads_command(data, output, weights)) == 0
    return output


def test_heads_writes_page_csv_and_plot(heads: Path) -> None:
    page = heads / "heads" / "heads.md"
    text = page.read_text()
    assert "2 images of two-shapes with 4 objects" in text and "2 for every trained row" in text
    assert "NVIDIA Tesla K40m" in text and "![AUC against time](heads.png)" in text
    accuracy = lines(page, "Accuracy")
    labels = [row[0] for row in accuracy[2:]]
    first, last = ["head original", "*head original, the paper's*"], ["head C", "*head C, the paper's*"]
    assert labels == [*first, "head A", "head B", *last]
    assert accuracy[-1][1:5] == ["*14.4*", "*25.8*", "*33.1*", "*19.4*"]
    assert accuracy[2][1].endswith("]")
    cost = lines(page, "Cost")
    assert [row[-1] for row in cost[2:]] == ["*1590*", "*510*", "*500*", "*460*"]
    findings = lines(page, "The paper's orderings")
    assert len(findings) == 2 + 6
    assert {row[4].strip("*") for row in findings[2:]} <= {"agrees", "disagrees", "within noise"}
    assert (heads / "heads" / "heads.png").read_bytes().startswith(b"\x89PNG")
    found = records(heads / "heads" / "heads.csv")
    assert {"the paper"} == {r["source"] for r in found if r["device"] == "NVIDIA Tesla K40m"}
    times = [r for r in found if r["row"] == "C" and r["metric"] == "total time" and r["source"] != "the paper"]
    assert len(times) == 1 and float(times[0]["value"]) > 0
    parameters = {r["row"]: float(r["value"]) for r in found if r["metric"] == "parameters"}
    assert parameters["original"] > parameters["A"] > parameters["B"] > parameters["C"]


def test_the_trunk_stays_frozen_and_is_the_same_in_every_row(heads: Path, weights: dict[str, Path]) -> None:
    before, _ = read_safetensors(weights["sharpmask-lite0"])
    for row in ("original", "A", "B", "C"):
        after, _ = read_safetensors(heads / "heads" / row / "deepmask.safetensors")
        trunk = {name: tensor for name, tensor in after.items() if name.startswith("trunk.")}
        assert trunk and all(torch.equal(tensor, before[f"deepmask.{name}"]) for name, tensor in trunk.items())


def test_finished_rows_are_not_trained_again(
    heads: Path,
    data: Path,
    weights: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(runner, "train", lambda *_, **__: pytest.fail("a finished row was trained"))
    again = heads_command(data, heads, weights)
    before = (heads / "heads" / "heads.md").read_text()
    assert main(again) == 0
    assert "heads.md; of the paper's orderings" in capsys.readouterr().out
    assert (heads / "heads" / "heads.md").read_text() == before


def test_other_settings_are_refused(
    heads: Path, data: Path, weights: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    again = heads_command(data, heads, weights)
    assert main([*again, "--seed", "3"]) == 2
    assert "holds this study with another seed" in capsys.readouterr().err
    done = heads / "heads" / "A" / "done.json"
    kept = done.read_text()
    done.write_text(kept.replace('"seed": 0', '"seed": 5'))
    assert main(again) == 2
    assert "A was trained with another seed; give another --output" in capsys.readouterr().err
    done.write_text(kept)


def test_killed_in_the_middle_of_a_row_it_goes_on(
    heads: Path, data: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    """The rows before stay as they are, the row is finished from its checkpoint, and all figures are the same."""
    for attempt in range(5):  # on a busy machine the row may be over before this process gets to kill it
        output = tmp_path / str(attempt)
        arguments = heads_command(data, output, weights)
        process = subprocess.Popen([sys.executable, PROGRAM, *arguments], stderr=subprocess.DEVNULL)
        second = output / "heads" / "A"
        while not any(second.glob("checkpoints/*.pt")) and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (second / "done.json").exists():
            break
    assert not (second / "done.json").exists() and not (output / "heads" / "B").exists(), "it was not in the middle"
    first = output / "heads" / "original" / "model.safetensors"
    stamp = first.stat().st_mtime_ns
    assert main(arguments) == 0
    assert first.stat().st_mtime_ns == stamp
    for row in ("original", "A", "B", "C"):
        whole, _ = read_safetensors(heads / "heads" / row / "model.safetensors")
        resumed, _ = read_safetensors(output / "heads" / row / "model.safetensors")
        assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())
    accuracy = [lines(folder / "heads" / "heads.md", "Accuracy") for folder in (heads, output)]
    assert accuracy[0] == accuracy[1]


def test_refinement_of_one_deepmask(
    data: Path, weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows refine the given model's DeepMask; the page has the comparison of the two forms."""
    monkeypatch.setattr(studies, "WIDTHS", (4, 32))
    model = str(weights["sharpmask-lite0"])
    assert main(command("refinement", data, tmp_path, "--base", "lite0", "--model", model, *SHORT)) == 0
    folder = tmp_path / "refinement"
    before, _ = read_safetensors(weights["sharpmask-lite0"])
    for row in ("k32", "k4", "k4-constant", "no-vertical", "multiscale"):
        after, metadata = read_safetensors(folder / row / "model.safetensors")
        coarse = {name: tensor for name, tensor in after.items() if name.startswith("deepmask.")}
        assert all(torch.equal(tensor.float(), before[name].half().float() if tensor.ndim > 1 else before[name])
                   for name, tensor in coarse.items())  # fmt: skip
        assert json.loads(metadata["spec"])["refinement"] == ("multiscale" if row == "multiscale" else "refactored")
    assert not (folder / "deepmask" / "done.json").exists()  # measured as it is
    page = folder / "refinement.md"
    forms = lines(page, "Plain and refactored form")
    assert [row[0] for row in forms[2:]] == ["10", "100", "500", "1,000"]
    kept = json.loads((folder / "forms.json").read_text())
    assert 0 <= kept["difference"] < 1e-3 and kept["largest"] > 0 and kept["windows"] > 100
    assert "refinement-forms.png" in page.read_text() and (folder / "refinement-forms.png").stat().st_size > 5000
    assert len(lines(page, "Accuracy")) == 2 + 8 + 2  # two rows of the paper


def test_trunks_without_imagenet_weights_are_costed_only(data: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    resnet = str(weights["deepmask-resnet50"])
    assert main(command("trunk", data, tmp_path, "--trunk-weights", resnet, *SHORT)) == 0
    page = tmp_path / "trunk" / "trunk.md"
    accuracy = {row[0]: row[1:] for row in lines(page, "Accuracy")[2:]}
    assert accuracy["W160-P4-D8-VGG"] == ["—"] * 5
    assert accuracy["*W160-P4-D8-VGG, the paper's*"][0] == "*35.5*"
    assert accuracy["W112-P3-D21-F128"][0].endswith("]")
    cost = {row[0]: row for row in lines(page, "Cost")[2:]}
    assert float(cost["DeepMask (W224, VGG-A)"][1]) > 0  # parameters
    assert "no ImageNet weights of VGG-A were given" in page.read_text()
    verdicts = {row[0]: row[4] for row in lines(page, "The paper's orderings")[2:]}
    assert verdicts["ResNet (D39) is above VGG-A"] == "not measured"
    assert verdicts["and faster than it"] != "not measured"
    assert not (tmp_path / "trunk" / "deepmask-vgg").exists()


def test_a_model_that_is_none_is_refused_at_once(
    data: Path, weights: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command("coco", data, tmp_path / "o", "--model", str(weights["deepmask-resnet50"]))) == 2
    assert "is a DeepMask, without refinement; give a SharpMask" in capsys.readouterr().err
    assert main(command("coco", data, tmp_path / "o", "--model", "sharpmusk")) == 2
    assert main(command("coco", data, tmp_path / "o", "--model", "none.safetensors")) == 1
    assert "no weights file none.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_coco_measures_one_model_with_its_zooms(data: Path, weights: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    assert main(command("coco", data, tmp_path, "--model", str(weights["sharpmask-lite0"]), "--photos", "1")) == 0
    page = tmp_path / "coco" / "coco.md"
    accuracy = {row[0]: row[1:] for row in lines(page, "Accuracy")[2:]}
    assert accuracy["*SharpMaskZoom, the paper's*"][:6] == ["*20.2*", "*39.7*", "*53.3*", "—", "*30.3*", "*39.2*"]
    assert accuracy["Selective Search"][3:] == ["—"] * 7 and accuracy["Selective Search"][0].endswith("]")
    assert accuracy["*MCG, the paper's*"][0] == "*10.1*"
    zooms = [json.loads((tmp_path / "coco" / row / "measured.jsonl").read_text().splitlines()[0])["identity"]["zoom"]
             for row in ("deepmask", "deepmask-zoom", "sharpmask-zoom2")]  # fmt: skip
    assert zooms == [0, 1, 2]
    assert (tmp_path / "coco" / "coco.png").stat().st_size > 5000
