"""The detection study in small: every row, a stop in between, the page; and options that do not fit."""

import csv
import dataclasses
from pathlib import Path

import pytest
import torch

from sharpmask.detection import specs
from sharpmask.errors import ConfigError, DataError
from sharpmask.reproduce import detection, detection_measure, detection_page, detection_proposals
from sharpmask.reproduce.datasets import find_data
from sharpmask.reproduce.report import reproduce
from sharpmask.reproduce.studies import check_options
from sharpmask.reproduce.study import Options

pytest.importorskip("matplotlib")


@pytest.fixture
def tiny_detectors(monkeypatch: pytest.MonkeyPatch, tiny_models: None) -> None:
    """Every detector small, few proposals, and classes that need one object."""
    for name, spec in list(specs.DETECTORS.items()):
        small = {"trunk_width": 8, "hidden": 8, "pooled_side": 2}
        monkeypatch.setitem(specs.DETECTORS, name, dataclasses.replace(spec, **small))
    kept = ("rpn", "sharpmask", "multipathnet")
    monkeypatch.setattr(detection, "ROWS", tuple(row for row in detection.ROWS if row.name in kept))
    monkeypatch.setattr(detection, "TRAIN_COUNT", 20)
    for module in (detection, detection_measure, detection_page, detection_proposals):
        monkeypatch.setattr(module, "COUNTS", (10, 30))
    monkeypatch.setattr(detection_page, "FREQUENT", 2)


def options(data: Path, output: Path, weights: dict[str, Path], **changes: object) -> Options:
    settings: dict[str, object] = {
        "data": find_data(data),
        "output": output,
        "base": "lite0",
        "trunk_weights": str(weights["sharpmask-lite0"]),
        "model": str(weights["sharpmask-lite0"]),
        "steps": 3,
        "photos": 2,
        "min_examples": 1,
        "device": "cpu",
    }
    return Options(**{**settings, **changes})  # type: ignore[arg-type]


def test_rows_after_a_stop(
    data: Path, tmp_path: Path, weights: dict[str, Path], tiny_detectors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = options(data, tmp_path, weights)
    train, trained = detection.train_detector, []

    def stop_at_the_third(*arguments: object, **named: object) -> Path:
        trained.append(1)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(detection, "train_detector", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        reproduce("detection", chosen, lambda text: None)
    line = reproduce("detection", chosen, lambda text: None)
    names = [row.name for row in detection.ROWS if (tmp_path / "detection" / row.name).exists()]
    assert len(trained) == len(names) + 1  # the stopped row twice, no other
    page = (tmp_path / "detection" / "detection.md").read_text()
    assert line.startswith(str(tmp_path / "detection" / "detection.md"))
    assert f"torch {torch.__version__}, " in page and ", CPU, " in page and "(200 resamples)" in page
    assert "## AP by class" in page and "with the weights of sharpmask-lite0" in page
    assert "a (4), b (4)" in page and "SharpMask + MultiPathNet" in page and "*25.2*" in page
    assert page.count("within noise") + page.count("| agrees") + page.count("| disagrees") >= 2
    assert (
        "each class with at least 2 objects" in page
        and "short side of 320 pixels" in page
        and "| a (2) | b (2) |" in page
    )
    assert "|  | all classes |  | a |  | b |  |" in page  # the orderings, of each frequent class too
    with open(tmp_path / "detection" / "detection.csv") as file:
        rows = list(csv.DictReader(file))
    assert {r["row"] for r in rows} == set(names) and {r["proposals"] for r in rows} == {"10", "30"}
    assert {r["kind"] for r in rows if r["row"] == "rpn"} == {"box"}
    assert (tmp_path / "detection" / "detection.png").stat().st_size > 5000
    with pytest.raises(ConfigError, match="another seed"):
        reproduce("detection", options(data, tmp_path, weights, seed=1), lambda text: None)


def test_rows_differ_in_one_thing(data: Path, tmp_path: Path, weights: dict[str, Path]) -> None:
    study = detection._Study(options(data, tmp_path, weights), find_data(data).train, lambda text: None)  # type: ignore[arg-type]
    configs = {row.name: study.config(row, 100, tmp_path / "x") for row in detection.ROWS}
    free = {"detector": "", "proposals": None}
    assert len({dataclasses.replace(config, **free) for config in configs.values()}) == 1  # type: ignore[arg-type]
    assert {c.detector for c in configs.values()} <= set(specs.DETECTORS)
    assert configs["no-skips"].detector == "multipathnet-lite0-no-skips"
    assert configs["deepmask"].proposals != configs["sharpmask"].proposals == configs["no-foveal"].proposals


def test_a_plan_from_minutes(
    data: Path, tmp_path: Path, weights: dict[str, Path], tiny_detectors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few minutes give few steps; too few are refused."""
    monkeypatch.setattr(detection, "ROWS", tuple(row for row in detection.ROWS if row.name in ("rpn", "multipathnet")))
    torch.manual_seed(0)
    chosen = options(data, tmp_path, weights, steps=None, photos=None, minutes=30.0)
    study = detection._Study(chosen, chosen.data.train, lambda text: None)  # type: ignore[arg-type]
    plan = study.plan()
    assert plan.steps >= 20 and plan.photos == 2 and plan.train_photos == 4 and "--minutes 30" in plan.origin
    assert study.plan() == plan and not (tmp_path / "detection" / "probe").exists()
    short = dataclasses.replace(chosen, minutes=0.001, output=tmp_path / "short")
    with pytest.raises(ConfigError, match=r"--minutes 0\.001 is too short"):
        detection._Study(short, short.data.train, lambda text: None).plan()  # type: ignore[arg-type]


def test_classes_are_chosen_before_anything_is_computed(
    data: Path, tmp_path: Path, weights: dict[str, Path], tiny_detectors: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detection._Study, "collect_proposals", lambda self, plan: pytest.fail("too late"))
    with pytest.raises(DataError, match="no class has 200 objects; lower min_examples"):
        reproduce("detection", options(data, tmp_path, weights, min_examples=200), lambda text: None)


def test_options_that_do_not_fit(data: Path, tmp_path: Path, weights: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="--min-examples 0: must be greater"):
        check_options("detection", options(data, tmp_path, weights, min_examples=0))
    with pytest.raises(ConfigError, match="--schedule has no meaning for 'detection'"):
        check_options("detection", options(data, tmp_path, weights, schedule="paper"))
    with pytest.raises(ConfigError, match="--trunk-weights FILE"):
        reproduce("detection", options(data, tmp_path, weights, base="resnet50", trunk_weights=None), print)
