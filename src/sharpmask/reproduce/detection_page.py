"""The detection study as a Markdown page, CSV and a plot of AP over the number of proposals."""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sharpmask
from sharpmask.evaluation.bootstrap import Estimate
from sharpmask.evaluation.detection_tables import compare_detections
from sharpmask.evaluation.detections import FIGURES, VOC
from sharpmask.evaluation.tables import percent, percent_points
from sharpmask.files import atomic_write
from sharpmask.reproduce.detection_rows import COUNTS, FREQUENT, TRAIN_COUNT, DetectionResults
from sharpmask.reproduce.plots import require_matplotlib

# COCO AP of boxes in percent, of VGG-16 trained on COCO in full (SharpMask paper, and arXiv 1604.02135).
PAPER = {"selective-search": 19.3, "rpn": 21.9, "sharpmask": 25.2, "multipathnet": 28.0}
CHALLENGE = "COCO challenge 2015, ensemble of MultiPathNets: 33.5 for boxes, 25.1 for masks, second in both"
# Orderings that the papers found: text, the better row, the other.
ORDERINGS = (
    ("SharpMask's proposals are above Selective Search's", "sharpmask", "selective-search"),
    ("SharpMask's proposals are above an RPN's", "sharpmask", "rpn"),
    ("SharpMask's proposals are above DeepMask's", "sharpmask", "deepmask"),
    ("MultiPathNet is above Fast R-CNN", "multipathnet", "sharpmask"),
    ("foveal regions help", "multipathnet", "no-foveal"),
    ("skips help", "multipathnet", "no-skips"),
    ("the integral loss helps", "multipathnet", "no-integral"),
)
_KINDS = {"bbox": "box", "segm": "mask"}
_SHOWN = ("AP", "AP50", "AP75", VOC)


def write_detection_page(results: DetectionResults, folder: Path) -> Path:
    """Write detection.md, detection.csv and detection.png; returns the page."""
    with atomic_write(folder / "detection.png") as temporary:
        _plot(results).savefig(temporary, dpi=120)
    with atomic_write(folder / "detection.csv") as temporary:
        temporary.write_text(_csv(results), encoding="utf-8")
    page = folder / "detection.md"
    with atomic_write(page) as temporary:
        temporary.write_text(_markdown(results), encoding="utf-8")
    return page


def _markdown(results: DetectionResults) -> str:
    plan = results.plan
    first = results.scores[results.rows[0].name][COUNTS[-1]]
    learnt = ", ".join(f"{entry.name} ({entry.examples})" for entry in results.classes)
    lines = [
        "# Detection with proposals of several methods",
        f"`sharpmask reproduce detection`, sharpmask {sharpmask.__version__}, torch {results.machine['torch']}, "
        f"{results.machine['date']}, {results.machine['device']}. Each row is the same detector, trained "
        f"and tested with the proposals it names: trunk {results.trunk} with the weights of {results.weights}, frozen, "
        f"config `detector-cpu`, photos with a short side of {results.short_side} pixels, {plan.steps:,} steps of 4 "
        f"photos ({plan.origin}), {plan.train_photos:,} photos to train on with {TRAIN_COUNT} proposals each.",
        "\n".join(
            [
                f"- Measured on {first.images} photos of {results.data}, {COUNTS[-1]:,} proposals each.",
                f"- Classes, with their objects to learn from: {learnt}. {results.left_out} classes with fewer than "
                f"{results.min_examples} are left out; AP is the mean over those of the learnt classes that the photos "
                "show.",
                "- Photos whose objects are not all annotated give no background where nothing is annotated, and say "
                "nothing of classes that are not annotated in them.",
                "- The masks are the proposals' own, with the detector's class and score. Boxes are not averaged (no "
                "box voting), unlike those of `sharpmask detect`.",
                *(f"- {note}" for note in results.notes),
            ]
        ),
        "## AP",
        f"Percent; in brackets the 95 % interval of a bootstrap over the {first.images} photos ({first.resamples:,} "
        f"resamples). *The paper's*: COCO 2014 in full with VGG-16, box AP. {CHALLENGE}.",
        _table(_rows(results)),
        "## AP by class",
        f"Box AP; beside the class its objects in the {first.images} photos.",
        _table(_by_class(results)),
        "## AP over the number of proposals",
        "Box AP with the best N proposals of each photo.",
        _table(_counts(results)),
        "![Box AP and mask AP over the number of proposals](detection.png)",
        "## The papers' orderings",
        "Differences of box AP in percentage points with the paired 95 % interval over the photos, in the mean over "
        f"classes and for each class with at least {FREQUENT} objects in these photos. *agrees*, "
        "*disagrees*: the whole interval says so.",
        _table(_orderings(results)),
    ]
    return "\n\n".join(lines) + "\n"


def _rows(results: DetectionResults) -> Iterator[list[str]]:
    yield ["", *(f"box {name}" for name in _SHOWN), "mask AP", "mask AP50", "*box AP, the paper's*"]
    for row in results.rows:
        scores = results.scores[row.name][COUNTS[-1]]
        boxes, masks = scores.intervals["bbox"], scores.intervals.get("segm")
        published = f"*{PAPER[row.name]:.1f}*" if row.name in PAPER else "—"
        cells = [percent(boxes[name]) for name in _SHOWN]
        cells += [percent(masks[name]) if masks else "—" for name in ("AP", "AP50")]
        yield [row.label, *cells, published]


def _by_class(results: DetectionResults) -> Iterator[list[str]]:
    names = [entry.name for entry in results.classes]
    yield ["", *(f"{name} ({results.shown.get(name, 0):,})" for name in names)]
    for row in results.rows:
        found = results.scores[row.name][COUNTS[-1]].by_class["bbox"]
        yield [row.label, *(percent(found[name]) for name in names)]


def _counts(results: DetectionResults) -> Iterator[list[str]]:
    yield ["", *(f"{count:,}" for count in COUNTS)]
    for row in results.rows:
        figures = [results.scores[row.name][count].figures["bbox"]["AP"] for count in COUNTS]
        yield [row.label, *(percent(Estimate(value, math.nan, math.nan)) for value in figures)]


def _orderings(results: DetectionResults) -> Iterator[list[str]]:
    """Each ordering in the mean over classes, and in each frequent class."""
    frequent = [entry.name for entry in results.classes if results.shown.get(entry.name, 0) >= FREQUENT]
    yield ["", "all classes", "", *(cell for name in frequent for cell in (name, ""))]
    for text, better, other in ORDERINGS:
        if better in results.scores and other in results.scores:
            pair = (results.scores[other][COUNTS[-1]], results.scores[better][COUNTS[-1]])
            found = [compare_detections(*pair, "bbox", figure) for figure in ("AP", *frequent)]
            yield [text, *(cell for difference in found for cell in (percent_points(difference), _verdict(difference)))]


def _verdict(difference: Estimate) -> str:
    return "agrees" if difference.low > 0 else "disagrees" if difference.high < 0 else "within noise"


def _table(rows: Iterator[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _csv(results: DetectionResults) -> str:
    """One line a figure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "proposals", "kind", "figure", "percent"])
    for row in results.rows:
        for count, scores in results.scores[row.name].items():
            for kind, figures in scores.figures.items():
                for name in (*FIGURES, VOC):
                    value = figures[name]
                    writer.writerow(
                        [row.name, count, _KINDS[kind], name, "" if math.isnan(value) else f"{100 * value:.3f}"]
                    )
    return out.getvalue()


def _plot(results: DetectionResults) -> Any:
    figure = require_matplotlib()(figsize=(10.4, 4.4), layout="constrained")
    figure.suptitle("Detection: AP over the number of proposals", fontsize=10)
    for number, (kind, title) in enumerate(_KINDS.items(), start=1):
        axis = figure.add_subplot(1, 2, number)
        for place, row in enumerate(results.rows):
            points = [
                (count, 100 * scores.figures[kind]["AP"])
                for count, scores in results.scores[row.name].items()
                if kind in scores.figures
            ]
            if points:
                axis.plot(*zip(*points, strict=True), marker="o", color=f"C{place}", label=row.label)
        axis.set_xscale("log")
        axis.set_xticks(COUNTS, [f"{count:,}" for count in COUNTS])
        axis.set_xlabel("proposals an image")
        axis.set_ylabel(f"{title} AP, percent")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    return figure
