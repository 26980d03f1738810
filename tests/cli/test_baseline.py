"""`sharpmask baseline selective-search`: output and exit statuses."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sharpmask.cli.main import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    image = np.full((60, 80, 3), 90, np.uint8)
    image[10:40, 20:60] = 250
    Image.fromarray(image).save(tmp_path / "images" / "a.png")
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": 60, "width": 80}],
        "annotations": [],
        "categories": [],
    }
    (tmp_path / "ann.json").write_text(json.dumps(content))
    return tmp_path


def arguments(folder: Path, *more: str) -> list[str]:
    where = ["--annotations", str(folder / "ann.json"), "--output", str(folder / "out.json")]
    return ["baseline", "selective-search", str(folder / "images"), *where, *more]


def test_writes_boxes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    if not hasattr(cv2, "ximgproc"):
        pytest.skip("OpenCV is installed without its contrib modules")
    assert main(arguments(folder, "--top", "5")) == 0
    out = capsys.readouterr().out
    assert "of 1 images" in out and "s an image" in out and "fast" in out
    records = json.loads((folder / "out.json").read_text())
    assert 0 < len(records) <= 5 and records[0]["image_id"] == 5
    (folder / "images" / "a.png").write_bytes((folder / "images" / "a.png").read_bytes()[:60])
    Image.new("RGB", (20, 20)).save(folder / "images" / "b.png")
    content = json.loads((folder / "ann.json").read_text())
    content["images"].append({"id": 6, "file_name": "b.png", "height": 20, "width": 20})
    (folder / "ann.json").write_text(json.dumps(content))
    assert main(arguments(folder)) == 1  # one of two images is damaged
    assert "a.png" in capsys.readouterr().err


def test_missing_extra(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(arguments(folder)) == 2
    assert "pip install 'sharpmask[baselines]'" in capsys.readouterr().err
    assert not (folder / "out.json").exists()


@pytest.mark.parametrize("change", [["--top", "0"], ["--output", "/no/such/folder/out.json"]])
def test_bad_options(folder: Path, capsys: pytest.CaptureFixture[str], change: list[str]) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not installed")
    assert main(arguments(folder, *change)) == 2
    assert capsys.readouterr().err.startswith("sharpmask baseline: ")
