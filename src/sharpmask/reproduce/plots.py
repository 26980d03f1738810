"""The plots of the studies; matplotlib is an extra.

Filled marks with error bars are measured here, hollow ones are the paper's, on other hardware and data.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sharpmask.errors import MissingExtraError
from sharpmask.files import atomic_write
from sharpmask.reproduce.findings import ratio_of_sums, seconds
from sharpmask.reproduce.forms import COUNTS, Forms
from sharpmask.reproduce.paper import HARDWARE, PAPER
from sharpmask.reproduce.runner import Results
from sharpmask.reproduce.study import WIDTHS

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


def require_matplotlib() -> Any:
    """matplotlib's Figure class, without any window; MissingExtraError where it is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", "sharpmask reproduce") from error
    return Figure


def draw_plots(results: Results, folder: Path) -> list[tuple[str, str]]:
    """Draw a study's plots into `folder`; returns their file names and captions."""
    name = results.study.name
    plots: dict[str, tuple[Callable[[Results], Any], str]] = {
        name: {
            "trunk": (_accuracy_and_time, "Upper bound against mask time"),
            "heads": (_accuracy_and_time, "AUC against time"),
            "refinement": (_widths, "AUC and time against the width k"),
            "coco": (_curves, "AR against the number of proposals"),
        }[name]
    }
    if results.forms is not None:
        plots[f"{name}-forms"] = (_forms, "Time of the plain and the refactored form against the number of proposals")
    for file, (draw, _) in plots.items():
        with atomic_write(folder / f"{file}.png") as temporary:
            draw(results).savefig(temporary, dpi=120)
    return [(f"{file}.png", caption) for file, (_, caption) in plots.items()]


def _figure(panels: int, title: str) -> tuple[Any, list[Any]]:
    figure = require_matplotlib()(figsize=(5.2 * panels, 4.2), layout="constrained")
    figure.suptitle(title, fontsize=10)
    axes = [figure.add_subplot(1, panels, number + 1) for number in range(panels)]
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes


def _bars(results: Results, row: str, metric: str) -> tuple[float, list[list[float]]] | None:
    """A figure in percent and its error bar; None where it was not measured."""
    measured = results.measured.get(row)
    estimate = measured.estimate(metric) if measured else None
    if estimate is None or np.isnan(estimate.low):
        return None
    value = 100 * estimate.value
    return value, [[value - 100 * estimate.low], [100 * estimate.high - value]]


def _accuracy_and_time(results: Results) -> Any:
    """Accuracy over time, here and in the paper."""
    study = results.study
    metric = "upper bound" if study.upper_bound else "mask AUC"
    figure, (here, paper) = _figure(2, study.title)
    for number, row in enumerate(study.rows):
        colour = _COLOURS[number % len(_COLOURS)]
        found, bars = seconds(results.times[row.name], study.time), _bars(results, row.name, metric)
        if found is not None and bars is not None:
            here.errorbar(found.mean(), bars[0], yerr=bars[1], fmt="o", color=colour, capsize=3, label=row.label)
        figures = PAPER.get(study.name, {}).get(row.name, {})
        if metric in figures and study.time in figures:
            paper.plot(figures[study.time], figures[metric], "o", color=colour, mfc="none", label=row.label)
    here.set_title(f"here: {results.data}, {results.machine['device']}", fontsize=8)
    paper.set_title(f"the paper: COCO, {HARDWARE}", fontsize=8)
    for axis in (here, paper):
        axis.set_xlabel(f"{study.time}, s a photo")
        axis.set_ylabel(f"{metric}, %")
        axis.set_xlim(left=0)
        axis.legend(fontsize=7, framealpha=0.6)
    return figure


def _widths(results: Results) -> Any:
    """Capacity of the refinement: AUC and time over k, with the other rows as lines."""
    figure, (accuracy, time) = _figure(2, results.study.title)
    widths = [k for k in WIDTHS if f"k{k}" in results.measured]
    for colour, kind, name in ((_COLOURS[0], "(b) halved", "k{}"), (_COLOURS[1], "(a) constant", "k{}-constant")):
        rows = [name.format(k) for k in widths]
        bars = [_bars(results, row, "mask AUC") for row in rows]
        shown = [(k, *bar) for k, bar in zip(widths, bars, strict=True) if bar is not None]
        if shown:
            xs, ys, errors = zip(*shown, strict=True)
            accuracy.errorbar(xs, ys, yerr=np.hstack(errors), fmt="o-", color=colour, capsize=3, label=kind)
        times = [seconds(results.times[row], "refinement") for row in rows]
        time.plot(widths, [t.mean() for t in times if t is not None], "o-", color=colour, label=kind)
    others = ("deepmask", "no-vertical", "no-horizontal", "multiscale")
    for row, style, colour in zip(others, (":", "-.", "--", "-"), _COLOURS[2:], strict=False):
        bar = _bars(results, row, "mask AUC")
        if bar is not None:
            accuracy.axhline(bar[0], ls=style, color=colour, label=results.study.row(row).label)
    for axis, label in ((accuracy, "mask AUC, %"), (time, "refinement, s a photo")):
        axis.set_xscale("log", base=2)
        axis.set_xticks(widths, [str(k) for k in widths])
        axis.set_xlabel("k")
        axis.set_ylabel(label)
    accuracy.legend(fontsize=7, framealpha=0.6)
    time.legend(fontsize=7, framealpha=0.6)
    accuracy.set_title(f"here: {results.data}, {results.photos} images", fontsize=8)
    time.set_title(results.machine["device"], fontsize=8)
    return figure


def _forms(results: Results) -> Any:
    """Seconds of both forms and their ratio over the number of proposals."""
    forms = results.forms
    assert isinstance(forms, Forms)
    figure, (time, factor) = _figure(2, f"Plain and refactored refinement, {results.machine['device']}")
    for colour, form in zip(_COLOURS, ("plain", "refactored"), strict=False):
        for part, style in (("refinement", "o-"), ("total", "o:")):
            values = [forms.seconds(form, count, part).mean() for count in COUNTS]
            label = f"{form}, {'whole photo' if part == 'total' else part}"
            time.plot(COUNTS, values, style, color=colour, label=label)
    for part, style, colour in (("refinement", "o-", _COLOURS[2]), ("total", "s:", _COLOURS[3])):
        ratios = [
            ratio_of_sums(*(forms.seconds(form, count, part) for form in ("plain", "refactored"))) for count in COUNTS
        ]
        errors = [[r.value - r.low for r in ratios], [r.high - r.value for r in ratios]]
        label = "whole photo" if part == "total" else part
        values = [r.value for r in ratios]
        factor.errorbar(COUNTS, values, yerr=errors, fmt=style, color=colour, capsize=3, label=label)
    factor.axhline(1, color="#888888", lw=0.8)
    time.set_yscale("log")
    time.set_ylabel("s a photo")
    factor.set_ylabel("plain / refactored")
    for axis in (time, factor):
        axis.set_xscale("log")
        axis.set_xlabel("proposals a photo")
        axis.set_xticks(COUNTS, [f"{count:,}" for count in COUNTS])
        axis.minorticks_off()
        axis.legend(fontsize=7, framealpha=0.6)
    return figure


def _curves(results: Results) -> Any:
    """AR@N of boxes and masks over N, with the paper's three points."""
    figure, axes = _figure(2, f"{results.study.title}: {results.data}, {results.photos} images")
    limits = np.arange(1, 1001)
    for axis, kind, iou_type in zip(axes, ("box", "mask"), ("bbox", "segm"), strict=True):
        for number, row in enumerate(results.study.rows):
            colour = _COLOURS[number % len(_COLOURS)]
            areas = results.measured[row.name].recall.areas
            if iou_type in areas:
                axis.plot(limits, 100 * areas[iou_type]["all"].curve, color=colour, label=row.label)
            figures = PAPER["coco"].get(row.name, {})
            points = [(n, figures[f"{kind} AR@{n}"]) for n in (10, 100, 1000) if f"{kind} AR@{n}" in figures]
            if points:
                axis.plot(*zip(*points, strict=True), "o", color=colour, mfc="none")
        axis.set_xscale("log")
        axis.set_xlabel("proposals a photo")
        axis.set_ylabel(f"{kind} AR, %")
        axis.plot([], [], "o", color="#555555", mfc="none", label="the paper (COCO)")
        axis.legend(fontsize=7, framealpha=0.6)
    return figure
