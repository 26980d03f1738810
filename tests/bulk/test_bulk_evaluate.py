"""The results of a bulk run measured where they lie."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharpmask.bulk.coco import to_coco
from sharpmask.bulk.plan import read_plan
from sharpmask.bulk.storage import Place
from sharpmask.cli.main import main


def test_a_destination_is_measured_as_its_json(
    pictures: Callable[..., Path], bulk: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also one that is not complete, which is said."""
    bulk(pictures(10, {3: "text"}), tmp_path / "out")
    plan = read_plan(Place(str(tmp_path / "out")))
    assert plan is not None
    to_coco(plan, tmp_path / "coco")
    truth = json.loads((tmp_path / "coco" / "images.json").read_text())
    found = json.loads((tmp_path / "coco" / "proposals.json").read_text())
    # Every second proposal is an object.
    truth["annotations"] = [
        {**record, "id": number, "iscrowd": 0, "area": 16, "score": None} for number, record in enumerate(found[::2], 1)
    ]
    truth["categories"] = [{"id": 1, "name": "object"}]
    (tmp_path / "ann.json").write_text(json.dumps(truth))

    def figures(results: Path) -> Any:
        out = tmp_path / "figures.json"
        options = ["--annotations", str(tmp_path / "ann.json"), "--names", "a", "--json", str(out)]
        assert main(["evaluate", str(results), *options]) == 0
        return json.loads(out.read_text())["results"][0]

    whole = figures(tmp_path / "out")
    assert whole == figures(tmp_path / "coco" / "proposals.json")
    assert whole["proposals"] == len(found) and whole["figures"]["segm"]["all"]["AR@1000"]["value"] == 1
    (tmp_path / "out" / "images" / "chunk-000001.parquet").unlink()
    part = figures(tmp_path / "out")
    assert part["figures"]["segm"]["all"]["AR@1000"]["value"] < 1
    assert part["notes"][0].endswith("is not complete: 6 of 10 images are done")
    assert "is not complete" in capsys.readouterr().out
