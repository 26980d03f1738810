"""`sharpmask propose-bulk` and `sharpmask bulk-results` with the bundled model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from sharpmask.cli.main import main

pytest.importorskip("pyarrow")

PHOTO = Path(__file__).parents[2] / "examples" / "riders.jpg"
FAST = ["--top", "20", "--scales", "-1,-0.5", "--device", "cpu", "--workers", "1"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    Image.open(PHOTO).resize((160, 106)).save(folder / "b.jpg")
    (tmp_path / "in" / "a.jpg").write_text("no photo")
    return tmp_path / "in"


def test_a_run_and_its_results(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["propose-bulk", str(source), str(out), *FAST, "--nms", "0.9"]) == 0
    told = capsys.readouterr().out
    assert "images in   2" in told and "errors out  1 (1 image)" in told and "errors.parquet" in told
    coco = tmp_path / "coco"
    assert main(["bulk-results", str(out), "--verify", "--to-coco", str(coco)]) == 0
    assert "verified: every image once" in capsys.readouterr().out
    # The masks that one run of `propose` gives, but for what another number of threads rounds otherwise.
    assert main(["propose", str(source / "sub"), "--output", str(tmp_path / "one"), *FAST[:6], "--nms", "0.9"]) == 0
    one, bulk = (json.loads((folder / "proposals.json").read_text()) for folder in (tmp_path / "one", coco))
    assert len(one) == len(bulk) and 0 < len(bulk) <= 20 and {entry["image_id"] for entry in bulk} == {2}
    assert [entry["score"] for entry in bulk] == pytest.approx([entry["score"] for entry in one], rel=1e-3)
    ious = mask_utils.iou(*([entry["segmentation"] for entry in found] for found in (one, bulk)), [0] * len(bulk))
    assert np.diag(ious).min() > 0.98
    assert [image["file_name"] for image in json.loads((coco / "images.json").read_text())["images"]] == ["sub/b.jpg"]
    capsys.readouterr()

    assert main(["propose-bulk", str(source), str(out), *FAST, "--nms", "0.8"]) == 2
    assert "other options (cleaning nms: 0.9 then, 0.8 now)" in capsys.readouterr().err
    shutil.copy(PHOTO, source / "c.jpg")
    assert main(["propose-bulk", str(source), str(out), *FAST, "--nms", "0.9"]) == 1
    assert "has changed since the run began" in capsys.readouterr().err
    (out / "images" / "chunk-000000.parquet").unlink()
    assert main(["bulk-results", str(out), "--verify"]) == 1
    output = capsys.readouterr()
    assert "not done    2" in output.out and "is missing: its 2 images are not done" in output.err


@pytest.mark.parametrize(
    "options",
    [["--workers", "0"], ["--timeout", "0"], ["--column", "x"], ["--scales", "x"], ["--top", "0"], ["--nms", "2"]],
)
def test_bad_options_write_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main(["propose-bulk", str(source), str(tmp_path / "out"), *options]) == 2
    assert capsys.readouterr().err.startswith("sharpmask propose-bulk: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [["--top", "3"], ["--min-score", "0.5"]])
def test_options_of_the_results_without_effect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    assert main(["bulk-results", str(tmp_path), *options]) == 2
    assert "no effect without --to-coco" in capsys.readouterr().err


def test_results_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bulk-results", str(tmp_path)]) == 1
    assert "holds no run of propose-bulk" in capsys.readouterr().err
