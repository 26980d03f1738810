"""AR and AUC: equal to pycocotools' COCOeval on real and random data, and right where the answer is known."""

import contextlib
import copy
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sharpmask.errors import ConfigError, DataError
from sharpmask.evaluation.detections import evaluate_detections
from sharpmask.evaluation.recall import (
    AREAS,
    IOU_TYPES,
    LIMITS,
    MEAN_AR,
    THRESHOLDS,
    TOP,
    Recall,
    auc_weights,
    compare_recalls,
    evaluate_recall,
    match_ranks,
    rank_credits,
)
from sharpmask.evaluation.tables import recall_table

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools

COCO_MINI = Path(__file__).parents[3] / "shared" / "data" / "coco-mini" / "instances_val.json"


def pycocotools_recall(annotations: dict, results: list[dict], iou_type: str) -> np.ndarray:
    """COCOeval's recall (T, areas, limits); nan where it has no object (-1)."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(annotations)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), iou_type)
        evaluation.params.useCats = 0
        evaluation.params.maxDets = list(LIMITS)
        evaluation.evaluate()
        evaluation.accumulate()
    recall = evaluation.eval["recall"][:, 0]
    return np.where(recall < 0, np.nan, recall)


def assert_equal(annotations: dict, results: list[dict], iou_types: tuple[str, ...] = IOU_TYPES) -> Recall:
    """Every AR and every recall at one threshold equals pycocotools' to 1e-6."""
    ours = evaluate_recall(annotations, results, iou_types=iou_types, resamples=10, progress=False)
    for iou_type in iou_types:
        theirs = pycocotools_recall(annotations, results, iou_type)
        for column, area in enumerate(AREAS):
            figures = ours.areas[iou_type][area]
            np.testing.assert_allclose(figures.recalls, theirs[:, column], atol=1e-6)
            for row, limit in enumerate(LIMITS):
                expected = theirs[:, column, row].mean()
                assert ours.value(f"AR@{limit}", iou_type, area) == pytest.approx(expected, abs=1e-6, nan_ok=True)
                assert figures.curve[limit - 1] == pytest.approx(expected, abs=1e-6, nan_ok=True)
    return ours


def encode(mask: np.ndarray) -> dict:
    rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def blob(rng: np.random.Generator, height: int, width: int, box: tuple[float, float, float, float]) -> np.ndarray:
    """An ellipse or a rectangle in the box (xywh)."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    x, y, w, h = box
    across, down = np.abs(columns - x - w / 2) / (w / 2), np.abs(rows - y - h / 2) / (h / 2)
    return (np.maximum(across, down) <= 1) if rng.random() < 0.5 else (across**2 + down**2 <= 1)


def random_case(seed: int, *, images: int = 5, proposals: int = 60, side: int = 140) -> tuple[dict, list[dict]]:
    """Crowds, several categories and sizes, images without objects or without proposals; many equal scores."""
    rng = np.random.default_rng(seed)
    truth: dict = {"images": [], "annotations": [], "categories": [{"id": key} for key in (7, 1, 3)]}
    results: list[dict] = []
    for number in range(images):
        height, width = (int(value) for value in rng.integers(side // 2, side, 2))
        image_id = int(10 * number + 3)
        truth["images"].append({"id": image_id, "height": height, "width": width, "file_name": f"{number}.png"})
        boxes = []
        for _ in range(int(rng.integers(0, 12)) if number else 0):
            w, h = np.exp(rng.uniform(np.log(4), np.log(side), 2))
            box = (float(rng.uniform(0, width - 4)), float(rng.uniform(0, height - 4)), float(w), float(h))
            mask = blob(rng, height, width, box)
            if not mask.any():
                continue
            boxes.append(box)
            # Some areas lie exactly on the borders of the size ranges, which belong to both.
            area = float(rng.choice([mask.sum(), mask.sum(), 1024, 9216]))
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image_id,
                    "category_id": int(rng.choice([1, 3, 7])),
                    "iscrowd": int(rng.random() < 0.2),
                    "bbox": list(box),
                    "segmentation": encode(mask),
                    "area": area,
                }
            )
        for _ in range(proposals if number != 1 else 0):
            if boxes and rng.random() < 0.7:
                base = np.array(boxes[int(rng.integers(len(boxes)))])
                box = tuple(base + rng.normal(0, 0.1, 4) * base[[2, 3, 2, 3]])
            else:
                box = (*rng.uniform(0, side / 2, 2), *rng.uniform(4, side, 2))
            box = (float(box[0]), float(box[1]), max(float(box[2]), 1.0), max(float(box[3]), 1.0))
            results.append(
                {
                    "image_id": image_id,
                    "category_id": int(rng.choice([1, 1, 3])),
                    "bbox": list(box),
                    "segmentation": encode(blob(rng, height, width, box)),
                    "score": float(np.round(rng.random(), 1)),
                }
            )
    return truth, results


@pytest.mark.parametrize("seed", range(12))
def test_equals_pycocotools_on_random_data(seed: int) -> None:
    assert_equal(*random_case(seed))


def test_equals_pycocotools_beyond_1000_proposals() -> None:
    truth, results = random_case(100, images=2, proposals=60, side=60)
    truth["images"].append({"id": 999, "height": 60, "width": 60})
    rng = np.random.default_rng(0)
    for number in range(1, 9):
        mask = np.zeros((60, 60), bool)
        mask[5 * number : 5 * number + 12, 3 * number : 3 * number + 20] = True
        record = {
            "image_id": 999,
            "category_id": 1,
            "segmentation": encode(mask),
            "bbox": [3 * number, 5 * number, 20, 12],
        }
        truth["annotations"].append({**record, "id": 1000 + number, "iscrowd": 0, "area": int(mask.sum())})
        # The exact answer, but behind 1,200 others for half of the objects.
        results.append({**record, "score": 0.9 if number % 2 else 0.001 * number})
    for _ in range(1200):
        x, y, w, h = (int(value) for value in rng.integers(1, 30, 4))
        mask = np.zeros((60, 60), bool)
        mask[y : y + h, x : x + w] = True
        record = {"image_id": 999, "category_id": 1, "segmentation": encode(mask), "bbox": [x, y, w, h]}
        results.append({**record, "score": float(rng.uniform(0.1, 0.8))})
    scores = sorted((record["score"] for record in results if record["image_id"] == 999), reverse=True)
    results[[record["score"] for record in results].index(0.004)]["score"] = scores[TOP] + 1e-9  # just too late
    results[[record["score"] for record in results].index(0.002)]["score"] = scores[TOP - 2] + 1e-9  # just in time
    assert_equal(truth, results)


def test_equals_pycocotools_in_the_order_of_categories() -> None:
    # The first proposal fits both objects alike and takes the last one: by category, not as in the file.
    truth: dict = {
        "images": [{"id": 1, "height": 10, "width": 20}],
        "annotations": [],
        "categories": [{"id": 1}, {"id": 3}],
    }
    for number, (category, x) in enumerate([(3, 0), (1, 10)], 1):
        record = {"id": number, "image_id": 1, "category_id": category, "iscrowd": 0, "area": 100}
        truth["annotations"].append({**record, "bbox": [x, 0, 10, 10]})
    boxes = [[0, 0, 20, 10], [0, 0, 10, 10]]
    results = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 1 - n / 2} for n, box in enumerate(boxes)]
    recall = assert_equal(truth, results, ("bbox",))
    assert recall.areas["bbox"]["all"].recalls[0].tolist() == [0.5] * 4


@pytest.mark.skipif(not COCO_MINI.is_file(), reason="the coco-mini data set is not beside the checkout")
def test_equals_pycocotools_on_real_annotations() -> None:
    truth = json.loads(COCO_MINI.read_text())
    rng = np.random.default_rng(1)
    results = []
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for annotation in truth["annotations"]:
        height, width = sizes[annotation["image_id"]]
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, dict):
            rle = mask_utils.frPyObjects(segmentation, height, width)
        else:
            rle = mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))
        mask = mask_utils.decode(rle)
        for _ in range(3):  # shifted by up to a fifth of the object's side
            reach = np.ceil(np.array(annotation["bbox"][:1:-1]) / 5).astype(int)
            dy, dx = (int(rng.integers(-limit, limit + 1)) for limit in reach)
            moved = np.roll(mask, (dy, dx), (0, 1))
            x, y, w, h = annotation["bbox"]
            results.append(
                {
                    "image_id": annotation["image_id"],
                    "category_id": 1,
                    "bbox": [x + dx, y + dy, w, h],
                    "segmentation": encode(moved),
                    "score": float(np.round(rng.random(), 2)),
                }
            )
    recall = assert_equal(truth, results)
    assert (recall.images, recall.objects, recall.crowds, recall.proposals) == (103, 848, 8, 3 * 856)
    assert 0.1 < recall.value("AR@1000") < 0.9


# --- known answers -------------------------------------------------------------------------------------------------


def square_case(found: list[float], *, images: int = 1) -> tuple[dict, list[dict]]:
    """One 50x50 object an image; proposals of the given IoU, best score first: boxes of the same corner, less wide."""
    truth: dict = {"images": [], "annotations": [], "categories": [{"id": 1}]}
    results = []
    for image_id in range(1, images + 1):
        truth["images"].append({"id": image_id, "height": 100, "width": 100})
        record = {"image_id": image_id, "category_id": 1}
        truth["annotations"].append(
            {
                **record,
                "id": image_id,
                "iscrowd": 0,
                "area": 2500,
                "bbox": [10, 10, 50, 50],
                "segmentation": [[10, 10, 60, 10, 60, 60, 10, 60]],
            }
        )
        results += [
            {**record, "bbox": [10, 10, 50 * iou, 50], "score": 1 - place / 2000} for place, iou in enumerate(found)
        ]
    return truth, results


def test_auc_weights_integrate_over_log10() -> None:
    weights = auc_weights()
    assert weights.shape == (TOP,) and weights.sum() == pytest.approx(1)
    # AR = log10(N) / 3 rises evenly over the axis: the area is one half.
    assert weights @ (np.log10(np.arange(1, TOP + 1)) / 3) == pytest.approx(0.5)
    # found by the 101st proposal: 0 up to N = 100, 1 from N = 101
    step = (math.log10(1000) - (math.log10(100) + math.log10(101)) / 2) / 3
    assert rank_credits()[100, 4] == pytest.approx(step)
    assert rank_credits()[0, 4] == pytest.approx(1) and rank_credits()[TOP].sum() == 0


def test_known_figures() -> None:
    # 0.72 is enough for 5 of 10 thresholds; the 11th proposal is exact.
    truth, results = square_case([0.72] + [0.3] * 9 + [1.0])
    recall = evaluate_recall(truth, results, iou_types=["bbox"], resamples=10, progress=False)
    assert [recall.value(f"AR@{limit}", "bbox") for limit in LIMITS] == pytest.approx([0.5, 0.5, 1.0, 1.0])
    assert recall.value(MEAN_AR, "bbox") == pytest.approx((0.5 + 1 + 1) / 3)
    curve = recall.areas["bbox"]["all"].curve
    assert curve[9] == pytest.approx(0.5) and curve[10] == pytest.approx(1)
    axis = np.log10(np.arange(1, TOP + 1))
    assert recall.value("AUC", "bbox") == pytest.approx(np.trapezoid(curve, axis) / 3)
    assert recall.value("AR@1000", "bbox", "medium") == 1 and math.isnan(recall.value("AR@1000", "bbox", "small"))
    assert recall.to_dict()["figures"]["bbox"]["small"]["AUC"] == {"value": None, "low": None, "high": None}


def test_a_better_later_proposal_does_not_undo_a_match() -> None:
    # Greedy by score: the first takes its best object even where the second would have needed it.
    ious = np.array([[0.9, 0.6], [0.8, 0.0]])
    ranks = match_ranks(ious)
    assert ranks[0].tolist() == [0, TOP]  # at .50
    assert ranks[np.isclose(THRESHOLDS, 0.8)][0].tolist() == [0, TOP]
    assert ranks[-1].tolist() == [TOP, TOP]  # at .95


def test_equal_ious_take_the_last_object() -> None:
    assert match_ranks(np.array([[0.7, 0.7], [0.6, 0.0]]))[0].tolist() == [1, 0]


def test_images_without_proposals_count_as_missed() -> None:
    truth, results = square_case([1.0], images=4)
    recall = evaluate_recall(truth, results[:3], iou_types=["bbox"], resamples=10, progress=False)
    assert recall.value("AR@1", "bbox") == pytest.approx(0.75) and recall.empty_images == 1
    assert "1 images with objects have no proposal" in recall_table([recall])
    nothing = evaluate_recall(truth, [], resamples=10, progress=False)
    assert nothing.value("AR@1000", "segm") == 0 and nothing.value("AUC", "bbox") == 0


def test_missing_fields_are_taken_from_the_mask() -> None:
    truth, _ = square_case([])
    mask = np.zeros((100, 100), bool)
    mask[10:60, 10:60] = True
    del truth["annotations"][0]["area"], truth["annotations"][0]["bbox"]
    results = [{"image_id": 1, "segmentation": encode(mask), "score": 0.5}]
    recall = evaluate_recall(truth, results, resamples=10, progress=False)
    for iou_type in IOU_TYPES:
        assert recall.value("AR@1", iou_type, "medium") == 1
    assert recall.notes == ["proposals has no boxes: the masks' bounding boxes are used"]


def test_boxes_only_are_measured_as_boxes_and_said_so() -> None:
    truth, results = square_case([1.0])
    recall = evaluate_recall(truth, results, resamples=10, progress=False)
    assert recall.iou_types == ("bbox",) and recall.notes == ["proposals has no masks: boxes only"]
    with pytest.raises(ConfigError, match="has no masks"):
        evaluate_recall(truth, results, iou_types=["segm"], progress=False)


def test_annotations_of_unlisted_images_are_left_out() -> None:
    truth, results = square_case([1.0], images=2)
    truth["images"].pop()
    recall = evaluate_recall(truth, results[:1], iou_types=["bbox"], resamples=10, progress=False)
    assert recall.objects == 1 and recall.value("AR@1", "bbox") == 1
    assert "1 annotations belong to images that are not listed" in recall.notes[0]


# --- intervals -----------------------------------------------------------------------------------------------------


def test_interval_is_a_function_of_the_seed_and_holds_the_figure() -> None:
    truth, results = random_case(3, images=12)
    first, again, other = (
        evaluate_recall(truth, results, iou_types=["bbox"], seed=seed, progress=False).areas["bbox"]["all"].estimates
        for seed in (5, 5, 6)
    )
    assert first == again and first != other
    estimate = first["AR@100"]
    assert estimate.low < estimate.value < estimate.high


def test_interval_of_equal_images_is_a_point() -> None:
    truth, results = square_case([0.72], images=6)
    recall = evaluate_recall(truth, results, iou_types=["bbox"], resamples=50, progress=False)
    estimate = recall.areas["bbox"]["all"].estimates["AR@1"]
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((0.5, 0.5, 0.5))


def test_paired_difference_is_narrower_than_the_figures() -> None:
    truth, results = random_case(8, images=20)
    better = [{**record, "bbox": record["bbox"]} for record in results]
    better += [{"image_id": a["image_id"], "bbox": a["bbox"], "score": 2.0} for a in truth["annotations"][::4]]
    one, two = (
        evaluate_recall(truth, records, name=name, iou_types=["bbox"], progress=False)
        for name, records in (("one", results), ("two", better))
    )
    difference = compare_recalls(one, two, iou_type="bbox")["AR@100"]
    assert difference.value == pytest.approx(two.value("AR@100", "bbox") - one.value("AR@100", "bbox"))
    single = two.areas["bbox"]["all"].estimates["AR@100"]
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < single.high - single.low
    assert "boxes: minus one" in recall_table([one, two])
    with pytest.raises(ConfigError, match="not measured with 'segm'"):
        compare_recalls(one, two, iou_type="segm")


def test_differences_need_the_same_annotations() -> None:
    one, two = (
        evaluate_recall(*square_case([1.0], images=n), iou_types=["bbox"], resamples=5, progress=False) for n in (1, 2)
    )
    with pytest.raises(ConfigError, match="same annotations"):
        compare_recalls(one, two, iou_type="bbox")


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 77}, "result number 1 is of image 77, which is not in"),
        ({"score": float("nan")}, "result number 1 .* has the score nan"),
        ({"score": None}, "has the score None"),
        ({"bbox": None}, "neither bbox nor segmentation"),
        ({"bbox": [1, 2, 3]}, "must be .x, y, width, height."),
        ({"bbox": [1, 2, -3, 4]}, "must be .x, y, width, height."),
        ({"segmentation": {"size": [50, 100], "counts": "abc"}}, "the mask is 50x100 .* but the image is 100x100"),
        ({"segmentation": {"size": [100, 100], "counts": "52"}}, "damaged RLE"),
        ({"segmentation": {"size": [100, 100], "counts": [5, 2]}}, "add up to 7 pixels instead of 10000"),
        ({"segmentation": {"size": [100, 100], "counts": ["a"]}}, "an RLE needs"),
        ({"segmentation": {"size": [None, 100], "counts": "52"}}, "an RLE needs"),
        ({"category_id": [1]}, "result number 1 has no usable 'category_id'"),
    ],
)
def test_bad_results_are_named(change: dict, message: str) -> None:
    truth, results = square_case([1.0])
    results[0].update(change)
    with pytest.raises(DataError, match=message):
        evaluate_recall(truth, results, progress=False)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([], "not COCO annotations"),
        ({"images": [{"id": 1}]}, "has no list 'annotations'"),
        ({"images": [], "annotations": []}, "lists no images"),
        ({"images": [{"id": 1}, {"id": 1}], "annotations": []}, "image id 1 occurs twice"),
        ({"images": [{"id": 1}], "annotations": [{"image_id": None}]}, "no usable 'image_id'"),
        ({"images": [{"id": 1}], "annotations": [{"id": 4, "image_id": 1, "area": "x"}]}, "annotation 4 of image 1"),
        ({"images": [{"id": 1, "height": "x", "width": 9}], "annotations": []}, "image 1 has the height 'x'"),
        ({"images": [{"id": 1}], "annotations": [], "categories": [{"id": [2]}]}, "category ids must be all"),
        ({"images": [{"id": 1}], "annotations": [{"id": 4, "image_id": 1, "category_id": {}}]}, "the category_id {}"),
    ],
)
def test_bad_annotations_are_named(annotations: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / "ann.json"
    file.write_text(json.dumps(annotations))
    with pytest.raises(DataError, match=message):
        evaluate_recall(file, [], progress=False)


def test_polygons_without_image_size_or_far_outside_are_named() -> None:
    truth, _ = square_case([])
    del truth["images"][0]["height"]
    with pytest.raises(DataError, match="annotation 1 of image 1: polygons need the image's height"):
        evaluate_recall(truth, [], progress=False)
    truth, _ = square_case([])
    truth["annotations"][0]["segmentation"] = [[1, 1, 1e12, 1, 5, 5]]
    with pytest.raises(DataError, match="far outside"):
        evaluate_recall(truth, [], progress=False)


def test_unknown_iou_type() -> None:
    with pytest.raises(ConfigError, match="no IoU type keypoints"):
        evaluate_recall(*square_case([1.0]), iou_types=["keypoints"])


def test_ids_of_another_numbering_are_refused(tmp_path: Path) -> None:
    """`propose` without --annotations numbers photos itself, and says so in images.json beside its results."""
    box = {"category_id": 1, "bbox": [10, 10, 20, 20]}
    truth = {
        "images": [
            {"id": i, "file_name": f"photos/{name}.jpg", "height": 90, "width": 90} for i, name in enumerate("ab")
        ],
        "annotations": [{"id": i, "image_id": i, "area": 400, "iscrowd": 0, **box} for i in range(2)],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "proposals.json").write_text(json.dumps([{"image_id": 1, "score": 0.5, **box}]))
    paths = (tmp_path / "truth.json", tmp_path / "proposals.json")
    expected = evaluate_recall(*paths, iou_types=["bbox"], progress=False).value("AR@10", "bbox")
    own = tmp_path / "images.json"
    own.write_text(json.dumps({"images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("ab")]}))
    assert evaluate_recall(*paths, iou_types=["bbox"], progress=False).value("AR@10", "bbox") == expected == 0.5
    own.write_text(json.dumps({"images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("ba")]}))
    with pytest.raises(DataError, match=r"0 is 'b.png' here .* and 'photos/a.jpg' there; make .* with --annotations"):
        evaluate_recall(*paths, iou_types=["bbox"], progress=False)
    with pytest.raises(DataError, match=r"'b.png' here"):
        evaluate_detections(*paths)
