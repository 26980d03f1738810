"""`sharpmask reproduce`: what goes wrong is said in one line, before anything is trained."""

import sys
from pathlib import Path

import pytest

from sharpmask.cli.main import main


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "val").mkdir()
    (tmp_path / "instances_val.json").write_text('{"images": [], "annotations": [], "categories": []}')
    return tmp_path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["reproduce", *arguments]) in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("sharpmask reproduce: ")
    return lines[0]


def test_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SHARPMASK_DATA", raising=False)
    assert "give --data DIR" in refused(["coco", "--output", str(tmp_path)], capsys)


def test_matplotlib_is_asked_for_first(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    message = refused(["heads", "--data", str(data), "--output", str(data / "out")], capsys)
    assert "pip install 'sharpmask[plots]'" in message
    assert not (data / "out").exists()


def test_unusable_options(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    common = ["--data", str(data), "--output", str(data / "out"), "--device", "cpu"]
    assert "--trunk-weights FILE" in refused(["trunk", *common], capsys)
    assert "--photos 0: must be greater than 0" in refused(["coco", *common, "--photos", "0"], capsys)
    assert "lists no images" in refused(["heads", *common, "--base", "lite0"], capsys)
    (data / "file").touch()
    assert "cannot make the folder" in refused(["qualitative", *common[:2], "--output", str(data / "file")], capsys)
    assert not (data / "out" / "trunk").exists()
