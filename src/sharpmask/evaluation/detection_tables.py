"""The tables that `sharpmask evaluate-detections` prints, and its JSON."""

import json
from collections.abc import Sequence

import numpy as np

from sharpmask.errors import ConfigError
from sharpmask.evaluation.bootstrap import Estimate, estimates
from sharpmask.evaluation.detections import ALL, FIGURES, INTERVALS, IOU_TYPES, VOC, DetectionScores
from sharpmask.evaluation.tables import layout, percent, percent_points

_TITLES = {"bbox": "boxes", "segm": "masks"}


def detection_table(scores: Sequence[DetectionScores], *, by_class: bool = False) -> str:
    """Several results files on the same annotations side by side, in percent; `by_class` adds the AP of each class."""
    first = scores[0]
    shown = ", ".join(first.classes) if len(first.classes) <= 20 else f"{len(first.classes)} classes"
    left_out = f" ({first.partial} left out: not all of their objects are annotated)" if first.partial else ""
    lines = [
        f"{first.source}: {first.images} images{left_out}, {first.objects} objects of: {shown}",
        f"percent [95 % interval: bootstrap over images, {first.resamples:,} resamples, seed {first.seed}]",
    ]
    for kind in IOU_TYPES:
        columns = [entry for entry in scores if kind in entry.figures]
        if not columns:
            continue
        rows = [[_TITLES[kind], *(entry.name for entry in columns)]]
        rows += [[figure, *(_cell(entry, kind, figure) for entry in columns)] for figure in (*FIGURES, VOC)]
        if by_class:
            rows += [
                [f"AP {name}", *(percent(entry.by_class[kind][name]) for entry in columns)] for name in first.classes
            ]
        labels = [ALL, *(first.classes if by_class else ())] if first.min_score is not None else []
        for label in labels:
            above = [entry.shown[kind][label] for entry in columns]
            rows += [
                [f"precision {label}", *(percent(entry.precision) for entry in above)],
                [f"recall {label}", *(percent(entry.recall) for entry in above)],
            ]
            if label == ALL:
                rows += [
                    ["images mostly right", *(percent(entry.images_right) for entry in above)],
                    ["images with any found", *(percent(entry.images_found) for entry in above)],
                ]
        if len(columns) > 1:
            rows += [
                [
                    f"{figure} minus {columns[0].name}",
                    "",
                    *(percent_points(compare_detections(columns[0], e, kind, figure)) for e in columns[1:]),
                ]
                for figure in INTERVALS
            ]
        lines += ["", *layout(rows)]
    lines += [
        "",
        f"AP: over IoU .50:.95 and classes, 101 recalls, 100 detections an image and class. {VOC}: whole area.",
    ]
    if first.min_score is not None:
        lines += [
            f"precision, recall: at IoU .50, of the detections with a score of at least {first.min_score:g}.",
            "images: of those with such detections, more than half of them right; of those with objects, any found.",
        ]
    lines += [f"{entry.name}: {entry.detections:,} detections" for entry in scores]
    return "\n".join(lines)


def detection_json(scores: Sequence[DetectionScores]) -> str:
    """The figures as JSON text."""
    return json.dumps({"results": [entry.to_dict() for entry in scores]}, indent=1, allow_nan=False) + "\n"


def compare_detections(one: DetectionScores, two: DetectionScores, kind: str, figure: str) -> Estimate:
    """The second's figure less the first's, with the paired interval: both on the same resampled images.

    Args:
        figure: one of INTERVALS, or a class, of which it is the AP.

    Raises:
        ConfigError: they were not drawn alike.
    """
    if (one.resamples, one.seed, one.source, one.classes) != (two.resamples, two.seed, two.source, two.classes):
        raise ConfigError(f"{one.name} and {two.name} were not measured on the same resampled images and classes")
    place = (*INTERVALS, *one.classes).index(figure)
    drawn = two.drawn[kind][:, place] - one.drawn[kind][:, place]
    values = [{**entry.by_class[kind], **entry.intervals[kind]}[figure].value for entry in (one, two)]
    value = np.array([values[1] - values[0]])
    return estimates(["value"], value, drawn[:, None])["value"]


def _cell(entry: DetectionScores, kind: str, figure: str) -> str:
    if figure in INTERVALS:
        return percent(entry.intervals[kind][figure])
    return _percent(entry.figures[kind][figure])


def _percent(value: float) -> str:
    return percent(Estimate(value, float("nan"), float("nan")))
