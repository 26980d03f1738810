"""`sharpmask check`: exit statuses and what is printed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sharpmask.cli.main import main


def write(folder: Path, **changes: Any) -> Path:
    Image.fromarray(np.full((50, 60, 3), 90, np.uint8)).save(folder / "a.png")
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.png", "height": 50, "width": 60}],
        "categories": [{"id": 4, "name": "box"}],
        "annotations": [
            {"id": 9, "image_id": 1, "category_id": 4, "segmentation": [[5, 5, 35, 5, 35, 25, 5, 25]], "iscrowd": 0}
        ],
    }
    path = folder / "instances.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_sound_data_exit_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(write(tmp_path)), "--images", str(tmp_path)]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out


def test_faults_exit_with_1_and_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path)
    (tmp_path / "a.png").unlink()
    assert main(["check", str(path), "--images", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "error: missing image files: 1" in out
    assert "a.png" in out


def test_warnings_alone_exit_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = {"id": 1, "file_name": "a.png", "height": 50, "width": 60, "exhaustive": False}
    assert main(["check", str(write(tmp_path, images=[image])), "--images", str(tmp_path)]) == 0
    assert "warning: no exhaustively annotated image" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["[]", "{", "{}", ""])
def test_other_files_exit_with_1_and_one_line(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert main(["check", str(path), "--images", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "other.json" in error and "Traceback" not in error


def test_a_missing_folder_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(write(tmp_path)), "--images", str(tmp_path / "absent")]) == 1
    assert "absent" in capsys.readouterr().err


def test_without_a_folder_the_options_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["check", str(write(tmp_path))])
    assert stopped.value.code == 2
