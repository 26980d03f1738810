"""Verdicts, on accuracies and times whose order is known."""

from typing import Any

import numpy as np
import pytest

from sharpmask.evaluation.recall import evaluate_recall
from sharpmask.reproduce.findings import AGREES, DISAGREES, NOISE, UNKNOWN, judge, time_ratio
from sharpmask.reproduce.metrics import Measured
from sharpmask.reproduce.study import Finding, Row, Study

IMAGES = 40


def measured(found: dict[int, int]) -> Measured:
    """Of one object in each image, `found[image]` of the ten thresholds are reached by the only proposal."""
    images = [{"id": i, "height": 100, "width": 100} for i in range(IMAGES)]
    truth, results = [], []
    for i in range(IMAGES):
        truth.append({"id": i + 1, "image_id": i, "category_id": 1, "bbox": [0, 0, 100, 20], "area": 2000.0})
        # Overlap: .45 + .05 for each threshold that is to be reached, and a little more.
        results.append({"image_id": i, "bbox": [0, 0, 46 + 5 * found[i], 20], "score": 0.5})
    annotations: dict[str, Any] = {"images": images, "annotations": truth, "categories": [{"id": 1}]}
    recall = evaluate_recall(annotations, results, iou_types=["bbox"], progress=False)
    ious = [np.array([0.46 + 0.05 * found[i]]) for i in range(IMAGES)]
    return Measured(recall, ious, IMAGES)


LOW = measured(dict.fromkeys(range(IMAGES), 3))
HIGH = measured({i: 6 if i % 2 else 5 for i in range(IMAGES)})
# As high as LOW on the average, photo by photo very different.
NOISY = measured({i: 9 if i % 3 == 0 else 0 for i in range(IMAGES)})


def verdict(relation: Any, first: Measured, second: Measured, metric: str = "box AR@10") -> str:
    study = Study(
        "x", "X", "", (Row("a", "a", "a"), Row("b", "b", "b")), (), (Finding("t", "a", "b", relation, metric),)
    )
    return judge(study, {"a": first, "b": second}, {})[0].verdict


def test_figures_and_their_sums() -> None:
    assert LOW.estimate("box AR@10") is not None and LOW.estimate("mask AR@10") is None
    assert LOW.estimate("box AR@10").value == pytest.approx(0.3)  # type: ignore[union-attr]
    assert LOW.estimate("upper bound").value == pytest.approx(0.3)  # type: ignore[union-attr]
    medium = LOW.estimate("box AUC-M")
    small = LOW.estimate("box AUC-S")
    assert medium is not None and medium.value == pytest.approx(0.3)
    assert small is not None and np.isnan(small.value)  # no object is small
    difference = HIGH.minus(LOW, "box AR@100")
    assert difference is not None and difference.value == pytest.approx(0.25)
    assert 0.2 < difference.low < difference.value < difference.high < 0.3
    assert LOW.minus(LOW, "upper bound") is not None and LOW.minus(NOISY, "mask AUC") is None


def test_a_paired_interval_is_narrower_than_that_of_either_figure() -> None:
    better = measured({i: min(10, (9 if i % 3 == 0 else 0) + 1) for i in range(IMAGES)})
    gain, alone = better.minus(NOISY, "box AR@10"), NOISY.estimate("box AR@10")
    assert gain is not None and alone is not None
    assert gain.high - gain.low < 0.01 < alone.high - alone.low


@pytest.mark.parametrize(
    ("relation", "first", "second", "expected"),
    [
        ("above", HIGH, LOW, AGREES),
        ("above", LOW, HIGH, DISAGREES),
        ("above", NOISY, LOW, NOISE),
        ("above", LOW, LOW, NOISE),
        ("not below", HIGH, LOW, AGREES),
        ("not below", LOW, LOW, AGREES),
        ("not below", LOW, HIGH, DISAGREES),
        ("not below", NOISY, LOW, NOISE),
        ("equal", LOW, LOW, AGREES),
        ("equal", HIGH, LOW, DISAGREES),
        ("equal", LOW, HIGH, DISAGREES),
        ("equal", NOISY, LOW, NOISE),
    ],
)
def test_verdicts(relation: str, first: Measured, second: Measured, expected: str) -> None:
    assert verdict(relation, first, second) == expected
    assert verdict(relation, first, second, "upper bound") == expected
    assert verdict(relation, first, second, "mask AR@10") == UNKNOWN


def test_rows_that_were_not_measured() -> None:
    finding = Finding("t", "a", "b", "above", "box AR@10")
    study = Study("heads", "X", "", (Row("a", "a", "a"), Row("b", "b", "b")), (), (finding,))
    assert judge(study, {"a": LOW}, {})[0].verdict == UNKNOWN


def test_times() -> None:
    fast = [{"trunk": 1.0, "mask": 1.0, "total": 3.0 + i} for i in range(4)]
    slow = [{"trunk": 2.0, "mask": 3.0, "total": 6.0 + 2 * i} for i in range(4)]
    times = {"a": fast, "b": slow, "c": [{"trunk": 1.0, "mask": 1.0}] * 4}
    ratio = time_ratio(times, "b", "a", "total time")
    assert ratio is not None and ratio.value == ratio.low == ratio.high == pytest.approx(2)
    mask = time_ratio(times, "b", "a", "mask time")
    assert mask is not None and mask.value == pytest.approx(2.5)
    assert time_ratio(times, "c", "a", "total time") is None and time_ratio(times, "c", "d", "total time") is None
    findings = tuple(
        Finding("t", *rows, "faster", "total time") for rows in (("a", "b"), ("b", "a"), ("a", "a"), ("c", "a"))
    )
    rows = tuple(Row(name, name, name) for name in "abc")
    verdicts = [found.verdict for found in judge(Study("heads", "X", "", rows, (), findings), {}, times)]
    assert verdicts == [AGREES, DISAGREES, NOISE, UNKNOWN]
