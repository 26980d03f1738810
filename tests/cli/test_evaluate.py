"""`sharpmask evaluate` and `sharpmask evaluate-patches`: output, files and exit statuses."""

import json
from pathlib import Path

import pytest

from sharpmask.cli.main import main
from sharpmask.errors import ModelError


@pytest.fixture
def files(tmp_path: Path) -> Path:
    truth = {
        "images": [{"id": number, "file_name": f"{number}.jpg", "height": 100, "width": 100} for number in (1, 2, 3)],
        "annotations": [
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "area": 2500,
                "bbox": [10, 10, 50, 50],
                "segmentation": [[10, 10, 60, 10, 60, 60, 10, 60]],
            }
            for number in (1, 2, 3)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    polygon = [[10, 10, 60, 10, 60, 60, 10, 60]]
    good = [
        {"image_id": n, "category_id": 1, "segmentation": polygon, "bbox": [10, 10, 50, 50], "score": 0.9}
        for n in (1, 2, 3)
    ]
    boxes = [{"image_id": n, "category_id": 1, "bbox": [10, 10, 36, 50], "score": 0.9} for n in (1, 2)]
    for name, content in (("ann", truth), ("good", good), ("boxes", boxes)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_table_of_one_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(files / "good.json"), "--annotations", str(files / "ann.json")]) == 0
    out = capsys.readouterr().out
    assert "3 images, 3 objects" in out and "100.0 [100.0, 100.0]" in out
    assert "AUC = area under AR@N against log10(N)" in out and "mean AR@10/100/1000" in out
    for label in ("boxes", "masks", "AR@1 ", "AR@1000 large", "AUC-S", "AUC-M", "AUC-L"):
        assert label in out


def test_files_side_by_side_and_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out_file = files / "out.json"
    arguments = [
        "evaluate",
        str(files / "good.json"),
        str(files / "boxes.json"),
        "--annotations",
        str(files / "ann.json"),
    ]
    assert main([*arguments, "--names", "model", "search", "--json", str(out_file)]) == 0
    out = capsys.readouterr().out
    assert "boxes: minus model" in out and "search has no masks: boxes only" in out
    assert "1 images with objects have no proposal" in out
    content = json.loads(out_file.read_text())
    assert [result["name"] for result in content["results"]] == ["model", "search"]
    first, second = (result["figures"]["bbox"]["all"]["AR@10"]["value"] for result in content["results"])
    assert first == 1 and second == pytest.approx(2 / 3 * 0.5)  # IoU .72 passes 5 of 10 thresholds
    (difference,) = content["differences"]
    assert difference["iou_type"] == "bbox" and difference["figures"]["AR@10"]["value"] == pytest.approx(second - first)
    assert "area under AR@N" in content["results"][0]["auc_definition"]


def test_boxes_only_when_asked(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(files / "good.json"), "--annotations", str(files / "ann.json"), "--iou-type", "bbox"]
    assert main(["evaluate", *arguments]) == 0
    assert "masks" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        (["--annotations", "{}/none.json"], 1, "cannot be read"),
        (["--annotations", "{}/good.json"], 1, "not COCO annotations"),
        (["--names", "a", "b"], 2, "2 names for 1 results files"),
        (["--json", "{}/no/such/out.json"], 2, "does not exist"),
        (["--seed", "-1"], 2, "the seed must not be negative"),
        (["--resamples", "0"], 2, "at least 1"),
    ],
)
def test_faults_have_a_message_and_a_status(
    files: Path, capsys: pytest.CaptureFixture[str], change: list[str], status: int, message: str
) -> None:
    arguments = ["evaluate", str(files / "good.json"), "--annotations", str(files / "ann.json")]
    assert main([*arguments, *(word.format(files) for word in change)]) == status
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_damaged_and_foreign_results(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = files / "bad.json"
    for text, message in (
        ("[{", "not valid JSON"),
        ("{}", "COCO results are a list"),
        ("[3]", "number 1 is not an object"),
    ):
        bad.write_text(text)
        out = files / "out.json"
        arguments = ["evaluate", str(bad), "--annotations", str(files / "ann.json"), "--json", str(out)]
        assert main(arguments) == 1
        assert message in capsys.readouterr().err
        assert not out.exists()
    bad.write_text(json.dumps([{"image_id": 12345, "bbox": [1, 2, 3, 4], "score": 1}]))
    assert main(["evaluate", str(bad), "--annotations", str(files / "ann.json")]) == 1
    assert "12345" in capsys.readouterr().err


def test_evaluate_patches_passes_its_options_on(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sharpmask.evaluation import canonical
    from sharpmask.evaluation.patches import patch_metrics

    seen = {}

    def fake(model: str, **options: object) -> tuple[object, list[str]]:
        if model == "unknown":
            raise ModelError("no model 'unknown'")
        seen.update(options, model=model)
        return patch_metrics([0.4, 0.8], [1.0, -1.0], [1, 0], resamples=5), ["a note"]

    monkeypatch.setattr(canonical, "evaluate_canonical", fake)
    arguments = ["--annotations", "ann.json", "--images", "photos", "--count", "2", "--seed", "4"]
    out_file = files / "patches.json"
    assert main(["evaluate-patches", "--model", "small", *arguments, "--json", str(out_file)]) == 0
    assert (seen["count"], seen["seed"], seen["image_dir"], seen["model"]) == (2, 4, "photos", "small")
    out = capsys.readouterr().out
    assert "mean IoU" in out and "60.0" in out and "a note" in out
    assert json.loads(out_file.read_text())["figures"]["share IoU >= .7"]["value"] == 0.5
    assert main(["evaluate-patches", "--model", "unknown", *arguments]) == 1
    assert "no model 'unknown'" in capsys.readouterr().err
