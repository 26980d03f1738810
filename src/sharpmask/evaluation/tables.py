"""The tables that `sharpmask evaluate` prints: several sets of proposals side by side, in percent."""

import math
from collections.abc import Sequence

from sharpmask.evaluation.bootstrap import Estimate
from sharpmask.evaluation.recall import AREAS, AUC_FORMULA, IOU_TYPES, LIMITS, MEAN_AR, METRICS, Recall, compare_recalls

_TITLES = {"bbox": "boxes", "segm": "masks"}
_SIZES = [area for area in AREAS if area != "all"]
DIFFERENCES = ("AR@10", "AR@100", "AR@1000", "AUC")


def percent(estimate: Estimate) -> str:
    """`12.3 [11.0, 13.7]`: the figure and its interval in percent."""
    if math.isnan(estimate.value):
        return "—"
    if math.isnan(estimate.low):
        return f"{100 * estimate.value:.1f}"
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def layout(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if not column else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def recall_table(recalls: Sequence[Recall]) -> str:
    """The figures of sets of proposals on the same annotations, side by side, and the differences to the first."""
    first = recalls[0]
    lines = [
        f"{first.annotations}: {first.images} images, {first.objects} objects, "
        f"{first.crowds} crowds left out, class-agnostic",
        f"percent [95 % interval: bootstrap over images, {first.resamples:,} resamples, seed {first.seed}]",
    ]
    for iou_type in IOU_TYPES:
        shown = [recall for recall in recalls if iou_type in recall.areas]
        if shown:
            lines += ["", *layout(_rows(shown, iou_type))]
            lines += _differences(shown, iou_type)
    lines += ["", AUC_FORMULA]
    for recall in recalls:
        mean = recall.proposals / recall.images
        lines.append(f"{recall.name}: {recall.proposals:,} proposals, {mean:.1f} an image")
        if recall.empty_images:
            lines.append(
                f"{recall.name}: {recall.empty_images} images with objects have no proposal: these count as missed"
            )
        lines += recall.notes
    return "\n".join(lines)


def _rows(recalls: Sequence[Recall], iou_type: str) -> list[list[str]]:
    def figures(metric: str, area: str) -> list[str]:
        return [percent(recall.areas[iou_type][area].estimates[metric]) for recall in recalls]

    rows = [[_TITLES[iou_type], *(recall.name for recall in recalls)]]
    rows += [[metric, *figures(metric, "all")] for metric in METRICS if metric != MEAN_AR]
    rows.append([MEAN_AR, *figures(MEAN_AR, "all")])
    for limit in LIMITS[1:]:
        rows += [[f"AR@{limit} {area}", *figures(f"AR@{limit}", area)] for area in _SIZES]
    rows += [[f"AUC-{area[0].upper()}", *figures("AUC", area)] for area in _SIZES]
    return rows


def _differences(recalls: Sequence[Recall], iou_type: str) -> list[str]:
    if len(recalls) < 2:
        return []
    compared = [compare_recalls(recalls[0], other, iou_type=iou_type) for other in recalls[1:]]
    rows = [[f"{_TITLES[iou_type]}: minus {recalls[0].name}", *(recall.name for recall in recalls[1:])]]
    rows += [[metric, *(percent_points(differences[metric]) for differences in compared)] for metric in DIFFERENCES]
    return ["", *layout(rows)]


def percent_points(estimate: Estimate) -> str:
    """`+1.3 [+1.0, +1.7]`: a difference and its interval in percent."""
    if math.isnan(estimate.value):
        return "—"
    if math.isnan(estimate.low):
        return f"{100 * estimate.value:+.1f}"
    return f"{100 * estimate.value:+.1f} [{100 * estimate.low:+.1f}, {100 * estimate.high:+.1f}]"
