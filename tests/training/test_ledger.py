"""The ledger: what a row says, and its table in a page."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sharpmask.cli.main import build_parser, main
from sharpmask.cli.train import rewrite, train_config
from sharpmask.errors import DataError
from sharpmask.training.ledger import minutes, nearest_config, read_rows, table

FIGURE = {"value": 0.2, "low": 0.15, "high": 0.25}
ROW: dict[str, Any] = {
    "run": "first",
    "model": "sharpmask-lite0",
    "config": "small-cpu",
    "changes": {"deepmask.steps": 100, "deepmask.milestones": [5, 6]},
    "seed": 3,
    "fold": "1/5",
    "photos": 1462,
    "steps": {"deepmask": 6500, "sharpmask": 2000},
    "minutes": 81.5,
    "device": "CPU",
    "patches": {"mean_iou": 0.7123},
    "measured": {"val": {"photos": 103, "AR@10": FIGURE, "AR@100": FIGURE, "AR@1000": FIGURE}},
}


def written(folder: Path, row: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "ledger.json").write_text(json.dumps(row))
    return folder


@pytest.mark.parametrize("name", ["small-cpu", "coco", "fast-cpu", "finetune"])
def test_settings_are_told_by_what_differs_from_a_shipped_config(name: str) -> None:
    arguments = ["--config", name, "annotations=a", "images=i", "output=o"]
    parsed = build_parser("train").parse_args(rewrite(arguments))
    config = train_config(parsed)
    assert nearest_config(config) == (name, {})
    other = dataclasses.replace(
        config, seed=5, device="cpu", deepmask=dataclasses.replace(config.deepmask, average=0.5)
    )
    assert nearest_config(other) == (name, {"deepmask.average": 0.5})


def test_minutes_leave_pauses_out() -> None:
    log = [
        {"time": 0, "stage": "deepmask", "step": 50, "patches_per_second": 10.0},
        {"time": 0, "stage": "deepmask", "step": 50, "validation_seconds": 40.0},
        {"time": 99_999, "stage": "deepmask", "step": 100, "patches_per_second": 20.0},
        {"time": 0, "stage": "sharpmask", "step": 10, "patches_per_second": 4.0},
    ]
    # 50 x 8 / 10, 40, 50 x 8 / 20 and 10 x 2 / 4 seconds
    assert minutes(log, {"deepmask": 8, "sharpmask": 2}) == pytest.approx((40 + 40 + 20 + 5) / 60)


def test_table() -> None:
    head, _, line = table([ROW]).splitlines()
    assert head.count("|") == line.count("|") == 17
    assert "`deepmask.steps=100`, `deepmask.milestones=[5,6]`" in line
    assert "| 1,462 (fold 1/5) | 6,500 + 2,000 | 81.5 | CPU | 0.712 | 20.0 [15.0, 25.0] |" in line
    assert line.endswith("| – | – | – |")  # not measured on a fold


def test_settings_of_a_stage_that_was_left_out_are_not_told() -> None:
    changes = {
        "sharpmask.steps": 0,
        "sharpmask.clip": 1.0,
        "deepmask.clip": 2.0,
        "start_from": "/some/where/a/d.safetensors",
    }
    line = table([{**ROW, "changes": changes, "steps": {"deepmask": 5}}]).splitlines()[-1]
    assert "| `sharpmask.steps=0`, `deepmask.clip=2.0`, `start_from=a/d.safetensors` |" in line


def test_the_table_goes_into_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = written(tmp_path / "first", ROW)
    assert main(["ledger", str(run)]) == 0
    assert capsys.readouterr().out == table([ROW])
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- ledger -->\nold\n<!-- end ledger -->\nafter\n")
    for _ in range(2):
        assert main(["ledger", str(run), "--output", str(page)]) == 0
        assert page.read_text() == f"before\n<!-- ledger -->\n{table([ROW])}<!-- end ledger -->\nafter\n"
    page.write_text("no marks")
    assert main(["ledger", str(run), "--output", str(page)]) == 1
    assert page.read_text() == "no marks" and "needs one line '<!-- ledger -->'" in capsys.readouterr().err
    with pytest.raises(DataError, match="holds no finished run"):
        read_rows([tmp_path])
