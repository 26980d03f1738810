"""AP of detections: equal to pycocotools, to values computed by hand, and bad files named."""

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sharpmask.cli.main import main
from sharpmask.errors import ConfigError, DataError
from sharpmask.evaluation.detection_tables import compare_detections, detection_table
from sharpmask.evaluation.detections import ALL, FIGURES, VOC, evaluate_detections
from sharpmask.evaluation.inputs import read_annotations

SIZE = (240, 320)


def rectangle(box: list[float]) -> dict[str, Any]:
    """The RLE of a box xywh."""
    mask = np.zeros(SIZE, np.uint8, order="F")
    x, y, w, h = (round(v) for v in box)
    mask[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)] = 1
    code = coco_mask.encode(mask)
    return {"size": list(SIZE), "counts": code["counts"].decode()}


def scene(seed: int = 0, images: int = 12) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations of three classes (one crowd, sizes of every kind) and detections of different quality."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(images):
        for _ in range(rng.integers(0, 7)):
            side = rng.choice([14, 50, 130])
            box = [*rng.uniform(0, [SIZE[1] - side, SIZE[0] - side]), *(side * rng.uniform(0.7, 1.0, 2))]
            box = [float(round(v)) for v in box]
            category = int(rng.choice([3, 5, 9]))
            annotations.append(
                {
                    "id": len(annotations),  # pycocotools takes 0 for "no match"
                    "image_id": image,
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(rng.random() < 0.1),
                    "segmentation": rectangle(box),
                }
            )
            for _ in range(rng.integers(0, 4)):
                moved = [v + rng.normal(0, 0.12) * box[2 + i % 2] for i, v in enumerate(box)]
                moved = [float(max(1.0, v)) for v in moved]
                results.append(
                    {
                        "image_id": image,
                        "category_id": category if rng.random() < 0.8 else 5,
                        "bbox": moved,
                        "score": float(rng.choice([0.3, 0.5, rng.random()])),
                        "segmentation": rectangle(moved),
                    }
                )
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": SIZE[0], "width": SIZE[1]} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 9, "name": "pan"}],
    }
    return content, results


def pycocotools_stats(content: dict[str, Any], results: list[dict[str, Any]], kind: str) -> np.ndarray:
    content = copy.deepcopy(content)
    for annotation in content["annotations"]:
        annotation["id"] += 1
    drop = {"bbox": "segmentation", "segm": "bbox"}[kind]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        found = truth.loadRes([{k: v for k, v in copy.deepcopy(r).items() if k != drop} for r in results])
        evaluated = COCOeval(truth, found, kind)
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    return evaluated.stats


@pytest.mark.parametrize("seed", range(3))
def test_all_figures_are_pycocotools(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    content, results = scene(seed)
    scores = evaluate_detections(content, results, resamples=0)
    for kind in ("bbox", "segm"):
        expected = pycocotools_stats(content, results, kind)
        assert 0.05 < expected[0] < 0.95
        assert [scores.figures[kind][name] for name in FIGURES] == pytest.approx(list(expected), abs=1e-12)
        assert np.nanmean([own.value for own in scores.by_class[kind].values()]) == pytest.approx(expected[0])
    assert capsys.readouterr().out == ""


def test_intervals_hold_the_figure_and_their_own_sums_agree_with_pycocotools() -> None:
    content, results = scene(4, images=30)
    scores = evaluate_detections(content, results, resamples=50)
    for kind in ("bbox", "segm"):
        for name, estimate in scores.intervals[kind].items():
            assert estimate.low < estimate.value < estimate.high, name
    # Every image once is no resample but the figure itself.
    from sharpmask.evaluation import detections as module
    from sharpmask.evaluation.average_precision import class_matches

    reference = module._reference(read_annotations(content), range(30), masks=False)
    evaluated = module._coco_eval(reference, results, "bbox", [3, 5, 9])
    matches = [class_matches(evaluated, place) for place in range(3)]
    whole = module._resampled(matches, np.ones(30))
    expected = [scores.figures["bbox"][name] for name in module.INTERVALS]
    expected += [own.value for own in scores.by_class["bbox"].values()]
    assert whole == pytest.approx(expected, abs=1e-9)
    # A class's interval and paired difference are those of measuring it alone.
    alone = evaluate_detections(content, results, classes=["dog"], resamples=50)
    assert scores.by_class["bbox"]["dog"] == alone.intervals["bbox"]["AP"]
    worse = [{**record, "score": 1 - record["score"]} for record in results]
    both = [evaluate_detections(content, worse, classes=c, resamples=50) for c in ([], ["dog"])]
    assert compare_detections(scores, both[0], "bbox", "dog") == compare_detections(alone, both[1], "bbox", "AP")


def boxes_scene(detections: list[tuple[float, bool]], objects: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One class; detections of a score that hit an object of their own or nothing."""
    places = [[10.0 + 25 * i, 10.0, 20.0, 20.0] for i in range(objects)]
    content, _ = scene(0, images=1)
    content["annotations"] = [
        {"id": i, "image_id": 0, "category_id": 3, "bbox": b, "area": 400.0, "segmentation": rectangle(b)}
        for i, b in enumerate(places)
    ]
    free = iter(places)
    results = [
        {"image_id": 0, "category_id": 3, "score": s, "bbox": next(free) if hit else [200.0, 200.0, 20.0, 20.0]}
        for s, hit in detections
    ]
    return content, results


def test_voc_ap_by_hand() -> None:
    """Hit, miss, hit of three objects: the area is 1/3 * 1 + 1/3 * 2/3."""
    content, results = boxes_scene([(0.9, True), (0.8, False), (0.7, True)], 3)
    scores = evaluate_detections(content, results, resamples=0)
    assert scores.figures["bbox"][VOC] == pytest.approx(1 / 3 + 2 / 9)
    # COCO reads the same curve at 101 recalls: 34 of them up to 1/3, 33 up to 2/3.
    assert scores.figures["bbox"]["AP50"] == pytest.approx((34 + 33 * 2 / 3) / 101)


def test_precision_and_recall_of_what_is_shown_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of four objects: .9 hits, .8 misses, .7 hits the first one again, .6 hits, .4 would hit but is not shown."""
    content, results = boxes_scene([(0.9, True), (0.8, False), (0.6, True), (0.4, True)], 4)
    results.append({**results[0], "score": 0.7})
    scores = evaluate_detections(content, results, resamples=0, min_score=0.6)
    shown = scores.shown["bbox"]
    assert shown["cat"] == shown[ALL] and list(shown) == [ALL, *scores.classes]
    assert (shown["cat"].precision.value, shown["cat"].recall.value) == (0.5, 0.5)
    assert np.isnan(shown["dog"].precision.value) and np.isnan(shown["dog"].recall.value)
    crowd = {**content["annotations"][0], "id": 9, "bbox": [190.0, 190.0, 50.0, 50.0], "area": 2500.0, "iscrowd": 1}
    crowd["segmentation"] = rectangle(crowd["bbox"])
    content["annotations"].append(crowd)  # the miss lies within it and counts no longer
    shown = evaluate_detections(content, results, resamples=20, min_score=0.6).shown["bbox"][ALL]
    assert shown.precision.value == pytest.approx(2 / 3) and shown.recall.low == shown.recall.high == 0.5
    files = [tmp_path / "annotations.json", tmp_path / "found.json"]
    for path, value in zip(files, (content, results), strict=True):
        path.write_text(json.dumps(value), encoding="utf-8")
    arguments = ["evaluate-detections", str(files[1]), "--annotations", str(files[0]), "--by-class"]
    assert main([*arguments, "--min-score", "0.6", "--json", str(tmp_path / "out.json")]) == 0
    printed = capsys.readouterr().out
    assert "precision all classes" in printed and "recall cat" in printed and "at least 0.6" in printed
    assert "images mostly right" in printed and "images with any found" in printed
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["results"][0]
    assert written["min_score"] == 0.6 and written["shown"]["bbox"]["cat"]["recall"]["value"] == 0.5
    assert main(arguments) == 0 and "precision all" not in capsys.readouterr().out


def test_images_that_are_mostly_right_by_hand() -> None:
    """Six images: one right of one; one of two; two of three; none of one; an object, nothing shown; nothing at all."""
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]}
    results = []
    for image_id, (objects, hits, misses) in enumerate(
        [(1, 1, 0), (2, 1, 1), (2, 2, 1), (1, 0, 1), (1, 0, 0), (0, 0, 0)], 1
    ):
        content["images"].append({"id": image_id, "file_name": f"{image_id}.jpg", "height": 400, "width": 400})
        for number in range(max(objects, hits + misses)):
            record = {"image_id": image_id, "category_id": 1 + number % 2}
            here = [100.0 * number, 10.0, 50.0, 50.0]
            if number < objects:
                content["annotations"].append(
                    {**record, "id": len(content["annotations"]) + 1, "bbox": here, "area": 2500.0, "iscrowd": 0}
                )
            if number < hits:
                results.append({**record, "bbox": here, "score": 0.9})
            elif number < hits + misses:
                results.append({**record, "bbox": [here[0], 300.0, 50.0, 50.0], "score": 0.8})
    scores = evaluate_detections(content, results, resamples=0, min_score=0.5, iou_types=("bbox",))
    shown = scores.shown["bbox"][ALL]
    assert shown.precision.value == 4 / 7 and shown.recall.value == 4 / 7
    assert shown.images_right.value == 2 / 4 and shown.images_found.value == 3 / 5
    nothing = evaluate_detections(content, results, resamples=20, min_score=0.95, iou_types=("bbox",)).shown["bbox"]
    assert np.isnan(nothing[ALL].images_right.value) and nothing[ALL].images_found.high == 0


def test_classes_can_be_chosen_and_nothing_found_is_zero() -> None:
    content, results = scene(1)
    scores = evaluate_detections(content, results, classes=["dog"], resamples=0, iou_types=["bbox"])
    everything = evaluate_detections(content, results, resamples=0)
    assert scores.classes == ("dog",)
    assert scores.detections == sum(record["category_id"] == 5 for record in results) < everything.detections
    assert scores.figures["bbox"]["AP"] == pytest.approx(everything.by_class["bbox"]["dog"].value)
    assert evaluate_detections(content, [], resamples=0).figures["bbox"]["AP"] == 0
    with pytest.raises(ConfigError, match=r"no class 'cow'; it has: cat, dog, pan"):
        evaluate_detections(content, results, classes=["cow"])


def test_paired_differences() -> None:
    content, results = scene(2)
    worse = [{**r, "score": 1 - r["score"]} for r in results]
    one, two = (evaluate_detections(content, r, name=n, resamples=40) for r, n in ((results, "a"), (worse, "b")))
    same = compare_detections(one, one, "bbox", "AP")
    assert (same.value, same.low, same.high) == (0, 0, 0)
    difference = compare_detections(one, two, "segm", "AP50")
    assert difference.value == pytest.approx(two.figures["segm"]["AP50"] - one.figures["segm"]["AP50"])
    assert "AP50 minus a" in detection_table([one, two], by_class=True)


def test_images_that_are_not_exhaustive_are_left_out() -> None:
    """What nobody annotated there would count as false."""
    content, results = scene(1)
    partial = copy.deepcopy(content)
    for image in partial["images"][::3]:
        image["exhaustive"] = False
    gone = {image["id"] for image in partial["images"][::3]}
    kept = {
        "images": [image for image in content["images"] if image["id"] not in gone],
        "annotations": [a for a in content["annotations"] if a["image_id"] not in gone],
        "categories": content["categories"],
    }
    scores = evaluate_detections(partial, results, resamples=20)
    expected = evaluate_detections(kept, [r for r in results if r["image_id"] not in gone], resamples=20)
    assert scores.figures == expected.figures and scores.intervals == expected.intervals
    counts = (scores.images, scores.objects, scores.detections, scores.partial)
    assert counts == (expected.images, expected.objects, expected.detections, 4)
    assert "8 images (4 left out: not all of their objects are annotated)" in detection_table([scores])
    for image in partial["images"]:
        image["exhaustive"] = False
    with pytest.raises(DataError, match="no image is annotated exhaustively"):
        evaluate_detections(partial, results)
    partial["images"][0]["exhaustive"] = "false"
    with pytest.raises(DataError, match="image 0 has the exhaustive 'false'"):
        evaluate_detections(partial, results)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segmentation": None, "area": None}, "has no segmentation"),
        ({"segmentation": {"size": list(SIZE), "counts": [5, 5]}}, "runs add up to 10 pixels"),
        ({"segmentation": {"size": list(SIZE), "counts": "55"}}, "damaged RLE"),
        ({"segmentation": [[1, 2]]}, "a polygon of 2 numbers"),
        ({"bbox": "x"}, "has the bbox 'x'"),
        ({"area": "x"}, "has the area 'x'"),
    ],
)
@pytest.mark.parametrize("crowd", [0, 1])
def test_annotations_that_cannot_be_measured_are_named(crowd: int, changes: dict[str, Any], message: str) -> None:
    """Crowds, too: an RLE that does not fill its mask makes pycocotools run for ever."""
    content, results = scene(2)
    content["annotations"][3] |= {"iscrowd": crowd, **changes}
    with pytest.raises(DataError, match=f"annotation 3 of image.*{message}"):
        evaluate_detections(content, results)


def test_boxes_need_no_masks() -> None:
    """The area of an object without a mask is its box's."""
    content, results = scene(3)
    bare, boxes = copy.deepcopy(content), [{k: v for k, v in r.items() if k != "segmentation"} for r in results]
    for annotation in bare["annotations"]:
        del annotation["segmentation"], annotation["area"]
    expected = evaluate_detections(content, boxes, resamples=0)
    assert evaluate_detections(bare, boxes, resamples=0).figures == expected.figures
    nothing = evaluate_detections(bare, [], resamples=0)
    assert list(nothing.figures) == ["bbox"] and nothing.figures["bbox"]["AP"] == 0
    with pytest.raises(DataError, match="--iou-type bbox"):
        evaluate_detections(bare, results)


def test_bad_results_are_named() -> None:
    content, results = scene(1)
    with pytest.raises(DataError, match=r"category 77, which annotations does not list"):
        evaluate_detections(content, [{**results[0], "category_id": 77}])
    with pytest.raises(DataError, match="no masks"):
        boxes = [{k: v for k, v in r.items() if k != "segmentation"} for r in results]
        evaluate_detections(content, boxes, iou_types=["segm"])
    with pytest.raises(DataError, match=f"image {results[0]['image_id']}.*damaged"):
        evaluate_detections(content, [{**results[0], "segmentation": {"size": list(SIZE), "counts": "12"}}])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, results = scene(3)
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "found.json").write_text(json.dumps(results))
    files = [str(tmp_path / "found.json"), "--annotations", str(tmp_path / "truth.json")]
    out = str(tmp_path / "figures.json")
    assert main(["evaluate-detections", *files, "--resamples", "5", "--by-class", "--json", out]) == 0
    printed = capsys.readouterr().out
    expected = pycocotools_stats(content, results, "segm")
    masks = printed[printed.index("masks") :]
    assert f"{100 * expected[8]:.1f}" in next(line for line in masks.splitlines() if line.startswith("AR@100"))
    assert "AP dog" in printed
    figures = json.loads(Path(out).read_text())["results"][0]["figures"]
    assert figures["segm"]["AP"] == pytest.approx(expected[0])


def test_the_command_with_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, _ = scene(3)
    (tmp_path / "truth.json").write_text(json.dumps(content))
    truth = ["--annotations", str(tmp_path / "truth.json")]
    assert main(["evaluate-detections", str(tmp_path / "absent.json"), *truth]) == 1
    assert main(["evaluate-detections", "a.json", "b.json", "--names", "x", *truth]) == 2
    assert main(["evaluate-detections", "a.json", "--resamples", "-1", *truth]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3 and "absent.json" in errors[0] and all("Traceback" not in line for line in errors)
