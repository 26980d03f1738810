"""What a report holds, and what is said about files that do not belong together."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from report_scenes import OBJECT, Scene, embedded

from sharpmask.cli.main import main
from sharpmask.errors import ConfigError, DataError
from sharpmask.evaluation.recall import evaluate_recall
from sharpmask.evaluation.tables import percent
from sharpmask.report.write import write_view


def test_gallery_photos_masks_and_matches(scene: Scene) -> None:
    report = write_view(**scene.arguments())
    page = scene.path / "report.html"
    assert (report.photos, report.listed, report.objects, report.missed) == (3, 3, 5, 2)
    assert report.size == page.stat().st_size
    head = embedded(page, "report")
    assert [(photo["name"], photo["missed"][-1], photo["objects"]) for photo in head["photos"]] == [
        ("a.png", 0, 2),
        ("b.png", 1, 2),
        ("c.png", 1, 1),
    ]
    photo = embedded(page, "photo-0")
    assert [item["rank"] for item in photo["proposals"]] == [1, 2, 3]
    assert [item["area"] for item in photo["proposals"]] == [1600, 1440, 400]
    mask = coco_mask.decode({"size": [100, 120], "counts": photo["proposals"][1]["counts"].encode()})
    assert mask[50:86, 70:110].all() and mask.sum() == 1440
    first, second = photo["objects"]
    assert (first["category"], first["ranks"], first["ious"]) == ("crate", [1, 1, 1], [1, 1, 1])
    assert (second["ranks"], second["ious"]) == ([2, 2, 2], [0.9, 0.9, 0.9])
    missed = embedded(page, "photo-1")["objects"][1]
    assert (missed["ranks"], missed["ious"]) == ([2, 2, 2], [0.5, 0.5, 0.5])
    assert embedded(page, "photo-2")["objects"][0]["ranks"] == [0, 0, 0]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(photo["address"].split(",")[1]))))
    assert np.abs(shown[30, 30].astype(int) - OBJECT).max() < 12


def test_figures_are_those_of_the_evaluation(scene: Scene) -> None:
    write_view(**scene.arguments(resamples=50))
    recall = evaluate_recall(scene.path / "ann.json", scene.path / "proposals.json", resamples=50, progress=False)
    tables = {table["title"]: table for table in embedded(scene.path / "report.html", "report")["figures"]}
    for title, iou_type in (("masks", "segm"), ("boxes", "bbox")):
        rows = {row[0]: row[1] for row in tables[title]["rows"]}
        for metric in ("AR@10", "AUC"):
            assert rows[metric] == percent(recall.areas[iou_type]["all"].estimates[metric])
        counts = dict(map(tuple, tables[title]["curves"]["all"]))
        assert counts[1000] == pytest.approx(recall.value("AR@1000", iou_type), abs=1e-4)


def test_a_best_match_below_the_top_is_there(scene: Scene) -> None:
    write_view(**scene.arguments(top=1))
    photo = embedded(scene.path / "report.html", "photo-0")
    assert [item["rank"] for item in photo["proposals"]] == [1, 2]  # rank 3 is nobody's best match


def test_nothing_is_asked_from_elsewhere_and_text_cannot_leave_the_data(scene: Scene) -> None:
    name = "</script><script>alert(1)</script>&.png"
    Image.open(scene.photos / "a.png").save(scene.photos / "script>&.png")  # the part after the last slash
    scene.images[0]["file_name"] = name
    scene.save()
    write_view(**scene.arguments())
    page = (scene.path / "report.html").read_text()
    assert embedded(scene.path / "report.html", "report")["photos"][0]["name"] == name
    assert "alert(1)</script" not in page
    assert "default-src 'none'" in page
    outside = re.findall(r"""(?:src|href|url\()\s*=?\s*["'(]?(?:https?:)?//[^"')\s]+""", page)
    assert outside == []


def test_photos_are_limited_in_number_and_size(scene: Scene) -> None:
    report = write_view(**scene.arguments(photos=2, size=60))
    head = embedded(scene.path / "report.html", "report")
    assert [photo["name"] for photo in head["photos"]] == ["a.png", "c.png"]
    assert head["missed"] == 2 and head["notes"] == report.notes == [
        "2 of 3 photos are in this page, spread evenly over the list"
    ]
    photo = embedded(scene.path / "report.html", "photo-0")
    assert (photo["width"], photo["height"]) == (60, 50)
    mask = coco_mask.decode({"size": [50, 60], "counts": photo["proposals"][0]["counts"].encode()})
    assert mask[5:25, 5:25].all() and mask.sum() == 400
    write_view(**scene.arguments(photos=2, choose="missed"))
    assert [p["name"] for p in embedded(scene.path / "report.html", "report")["photos"]] == ["b.png", "c.png"]


def test_boxes_without_masks(scene: Scene) -> None:
    scene.results.clear()
    scene.propose(1, (10, 10, 40, 40), 0.9, mask=False)
    scene.save()
    write_view(**scene.arguments())
    photo = embedded(scene.path / "report.html", "photo-0")
    assert photo["proposals"] == [{"rank": 1, "score": 0.9, "box": [10, 10, 40, 40], "area": 1600}]
    assert photo["objects"][0]["ious"] == [1, 1, 1]


def test_without_annotations_the_image_list_beside_the_proposals_is_taken(scene: Scene) -> None:
    with pytest.raises(DataError, match=r"images\.json: not there.*give --annotations"):
        write_view(**scene.arguments(annotations=None))
    (scene.path / "images.json").write_text(json.dumps({"images": scene.images, "annotations": []}))
    report = write_view(**scene.arguments(annotations=None))
    head = embedded(scene.path / "report.html", "report")
    assert report.photos == 3 and head["annotations"] is None and head["figures"] == []


def test_a_listed_image_without_proposals_may_lack_its_photo(scene: Scene) -> None:
    (scene.photos / "c.png").unlink()
    report = write_view(**scene.arguments())
    assert report.photos == 2 and report.missed == 2
    assert report.notes == [f"1 listed images have neither proposals nor a photo in {scene.photos}: they are not shown"]


def spoil(scene: Scene, fault: str) -> None:
    if fault == "photo":
        (scene.photos / "b.png").unlink()
    elif fault == "damaged":
        (scene.photos / "b.png").write_bytes((scene.photos / "b.png").read_bytes()[:60])
    elif fault == "size":
        Image.new("RGB", (50, 50)).save(scene.photos / "b.png")
    elif fault == "mask size":
        scene.results[0]["segmentation"]["size"] = [120, 100]
        for image in scene.images:
            del image["height"], image["width"]
        for annotation in scene.annotations:
            annotation["segmentation"] = {"size": [100, 120], "counts": [12000]}
        scene.annotations.pop()
        scene.save()
    elif fault == "id":
        scene.results[0]["image_id"] = 77
        scene.save()
    elif fault == "json":
        (scene.path / "proposals.json").write_text("[{")
    elif fault == "annotations":
        (scene.path / "ann.json").write_text("[]")
    elif fault == "score":
        del scene.results[0]["score"]
        scene.save()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("photo", r"holds no 'b\.png' of image 2, which .*proposals\.json has proposals for"),
        ("damaged", r"b\.png: damaged or truncated"),
        ("size", r"b\.png: is 50x50 pixels, its annotation record says 120x100"),
        ("mask size", r"a mask of image 1 is 100x120 pixels, but .*a\.png is 120x100"),
        ("id", r"result number 1 is of image 77, which is not in .*ann\.json"),
        ("json", r"proposals\.json: not valid JSON"),
        ("annotations", r"ann\.json: not COCO annotations"),
        ("score", r"result number 1 \(image 1\) has the score None"),
    ],
)
def test_bad_input_has_a_message_and_leaves_no_page(scene: Scene, fault: str, message: str) -> None:
    spoil(scene, fault)
    with pytest.raises(DataError, match=message):
        write_view(**scene.arguments())
    assert not list(scene.path.glob("*report*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top": -1}, "top -1"),
        ({"photos": 0}, "photos 0"),
        ({"size": 3}, "size 3"),
        ({"annotations": None, "choose": "missed"}, "with --annotations only"),
        ({"output": "/no/such/folder/r.html"}, "does not exist"),
    ],
)
def test_bad_options(scene: Scene, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        write_view(**scene.arguments(**change))


def test_a_missing_folder(scene: Scene) -> None:
    with pytest.raises(DataError, match="absent: is no folder"):
        write_view(**scene.arguments(images=scene.path / "absent"))


def test_the_command(scene: Scene, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["view", str(scene.path / "proposals.json"), "--images", str(scene.photos)]
    page = scene.path / "new.html"
    assert main([*words, "--annotations", str(scene.path / "ann.json"), "--output", str(page), "--resamples", "5"]) == 0
    assert re.search(r"new\.html: 3 of 3 photos, 2 of 5 objects missed, \d+\.\d MB", capsys.readouterr().out)
    monkeypatch.setattr("sharpmask.report.write.LARGE_BYTES", 10)
    assert main([*words, "--annotations", str(scene.path / "ann.json"), "--output", str(page), "--resamples", "5"]) == 0
    assert "lower --photos" in capsys.readouterr().err
    assert main([*words, "--annotations", str(Path("none.json"))]) == 1
    assert "none.json: cannot be read" in capsys.readouterr().err
