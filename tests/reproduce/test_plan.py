"""Steps and photos from a stated time."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sharpmask.errors import ConfigError, DataError
from sharpmask.reproduce import plan
from sharpmask.reproduce.datasets import find_data
from sharpmask.reproduce.measure import read_validation
from sharpmask.reproduce.plan import Plan, make_plan
from sharpmask.reproduce.studies import build_study
from sharpmask.reproduce.study import Options

SPEEDS = {"original": (10.0, 1.0, 2.0), "A": (10.0, 0.5, 2.0), "B": (10.0, 0.5, 2.0), "C": (10.0, 0.5, 2.0)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of 200 photos that nobody opens, and rows of known speed."""
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 9, "width": 9} for i in range(200)]
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        content = {"images": images, "annotations": [], "categories": []}
        (tmp_path / f"instances_{part}.json").write_text(json.dumps(content))
    monkeypatch.setattr(plan, "_probe", lambda row, *_: plan._Probe(*SPEEDS[row.name]))
    return tmp_path


def planned(folder: Path, **changes: Any) -> Plan:
    options = Options(find_data(folder), folder / "out", base="lite0", device="cpu", **changes)
    (folder / "out").mkdir(exist_ok=True)
    validation = read_validation(options.data.val)
    return make_plan(build_study("heads", options), options, validation, folder / "out", lambda _: None)


def cost(found: Plan) -> float:
    """Seconds that training and measuring take at these speeds, without any reserve."""
    training = sum(start + found.steps[row] * step for row, (start, step, _) in SPEEDS.items())
    return training + sum(photo * (found.photos + 9) for _, _, photo in SPEEDS.values())


@pytest.mark.parametrize("minutes", [15, 50, 200])
def test_a_study_ends_in_the_stated_time(folder: Path, minutes: float) -> None:
    found = planned(folder, minutes=minutes)
    assert 0.75 * 60 * minutes < cost(found) < 60 * minutes
    assert len(set(found.steps.values())) == 1 and found.photos <= 200
    assert f"--minutes {minutes:g}" in found.origin


def test_what_is_given_is_not_derived(folder: Path) -> None:
    assert planned(folder, photos=7, minutes=15.0).photos == 7
    (folder / "out" / "plan.json").unlink()
    found = planned(folder, steps=300, minutes=30.0)
    assert set(found.steps.values()) == {300} and found.photos < 200 and 0.75 * 1800 < cost(found) < 1800
    (folder / "out" / "plan.json").unlink()
    found = planned(folder, schedule="paper")
    assert set(found.steps.values()) == {600_000} and found.photos == 200


def test_too_short_says_what_is_needed(folder: Path) -> None:
    with pytest.raises(ConfigError, match="--minutes 15 is too short"):
        planned(folder, minutes=15.0, photos=200)
    with pytest.raises(ConfigError, match=r"--minutes 2 is too short for 'heads' here: give \d+ or more") as error:
        planned(folder, minutes=2.0)
    needed = float(str(error.value).split("give ")[1].split()[0])
    found = planned(folder, minutes=needed)
    assert found.photos >= 10 and min(found.steps.values()) >= 20
    assert cost(found) < 60 * needed


def test_the_plan_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = planned(folder, minutes=20.0)
    monkeypatch.setattr(plan, "_probe", lambda *_: pytest.fail("the speed was measured again"))
    assert planned(folder, minutes=20.0) == dataclasses.replace(found, settings=planned(folder, minutes=20.0).settings)
    with pytest.raises(ConfigError, match="with another minutes, seed; go on with the same settings"):
        planned(folder, minutes=21.0, seed=1)
    (folder / "instances_val.json").write_text((folder / "instances_val.json").read_text() + " ")
    with pytest.raises(ConfigError, match="with another val;"):
        planned(folder, minutes=20.0)
    (folder / "out" / "plan.json").write_text("{")
    with pytest.raises(DataError, match=r"plan\.json cannot be read"):
        planned(folder, minutes=20.0)
