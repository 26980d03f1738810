"""The ablation runs from end to end with a tiny network, and goes on where it was stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from sharpmask.errors import ConfigError
from sharpmask.networks.specs import SPECS, ModelSpec

MODEL = "sharpmask-w112-p4-d39"


@pytest.fixture(scope="module")
def levers(load_benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return load_benchmark("levers")


def test_baseline_and_levers(
    levers: ModuleType,
    shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small: Callable[[ModelSpec], ModelSpec],
) -> None:
    monkeypatch.setitem(SPECS, MODEL, small(SPECS[MODEL]))
    truth, photos = str(shapes / "instances.json"), str(shapes)
    given = [str(tmp_path), "--annotations", truth, "--images", photos, "--val-annotations", truth]
    given += ["--val-images", photos, "--steps", "2", "--refine-steps", "1", "--fold", "1/3", "--photos", "2"]
    given += ["--only", "by-area", "end-to-end", "--together", "by-area", "boundary", "--set", f"model={MODEL}"]
    given += ["device=cpu", "workers=0", "validation_patches=4", "deepmask.batch_size=2", "sharpmask.batch_size=2"]
    given += ["endtoend.batch_size=2", "deepmask.negative_shift=10", "endtoend.negative_shift=10"]
    page = levers.run_all(levers.parser().parse_args(given)).read_text()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| lever", "| baseline", "| by-area", "| end-to-end", "| together"]
    assert {len(row) for row in rows} == {11}  # name, minutes, IoU, four figures of val and of the fold
    assert "val: 2 photos, fold: 2 photos" in page
    row = json.loads((tmp_path / "together" / "ledger.json").read_text())
    assert row["changes"]["sharpmask.boundary_weight"] == 3 and row["changes"]["deepmask.balance"] == "area"
    assert row["steps"] == {"deepmask": 2, "sharpmask": 1}
    # Stage 3 alone is new: the run begins with what the baseline ended with.
    row = json.loads((tmp_path / "end-to-end" / "ledger.json").read_text())
    assert row["steps"] == {"endtoend": 1}
    assert row["changes"]["start_from"] == str(tmp_path / "baseline" / "sharpmask.safetensors")

    # Stopped between two runs and given again: what is there stays, what is missing is made.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/model.safetensors")}
    (tmp_path / "together" / "ledger.json").unlink()
    assert levers.run_all(levers.parser().parse_args(given)).read_text().splitlines()[:5] == page.splitlines()[:5]
    assert (tmp_path / "together" / "ledger.json").exists()
    changed = [path.parent.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == ["together"]


def test_stages_taken_from_the_baseline(levers: ModuleType) -> None:
    of = Path("done")
    assert levers.same_stages({"sharpmask.boundary_weight": 3.0, "endtoend.steps": 5}, of) == {
        "start_from": str(of / "deepmask.safetensors"),
        "trunk_weights": None,
        "deepmask.steps": 0,
    }
    given = ["out", "--annotations", "a", "--images", "i", "--val-annotations", "v", "--val-images", "w"]
    base = levers.baseline(levers.parser().parse_args([*given, "--trunk-weights", "imagenet.safetensors"]))
    config = levers.changed(base, levers.same_stages({"endtoend.steps": 5}, of))
    assert (config.trunk_weights, config.start_from) == (None, str(of / "sharpmask.safetensors"))
    for changes in ({}, {"deepmask.balance": "area", "sharpmask.balance": "area"}, {"annotations": "a.json"}):
        assert levers.same_stages(changes, of) == {}


def test_names_that_are_no_levers(levers: ModuleType, tmp_path: Path) -> None:
    given = [str(tmp_path), "--annotations", "a", "--images", "i", "--val-annotations", "v", "--val-images", "i"]
    with pytest.raises(ConfigError, match="no lever 'teacher'"):
        levers.levers(levers.parser().parse_args([*given, "--only", "teacher"]))
    with pytest.raises(ConfigError, match="StageConfig has no setting 'stepz'"):
        levers.baseline(levers.parser().parse_args([*given, "--set", "deepmask.stepz=1"]))
