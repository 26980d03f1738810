"""A stacked bar chart of where the time goes, with the least time that the machine's matrix products would need."""

from pathlib import Path
from typing import Any

from sharpmask.benchmark.run import Report
from sharpmask.benchmark.stages import STAGES
from sharpmask.errors import MissingExtraError
from sharpmask.files import atomic_write

_COLOURS = {
    "decode": "#9aa5b1",
    "pyramid": "#c9d1d9",
    "trunk": "#1f5fa8",
    "score": "#4f93d6",
    "horizontal": "#9cc7f0",
    "dense": "#1f5fa8",
    "top-N": "#6b4fa0",
    "refinement": "#e0862e",
    "paste + RLE": "#3c9a5f",
    "result": "#b0b0b0",
}


def pyplot() -> Any:
    """matplotlib.pyplot without a display; MissingExtraError when it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", "a chart") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def draw_stages(report: Report, path: str | Path) -> None:
    """Write the chart of a report as a picture (PNG, SVG, PDF, by suffix).

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    plt = pyplot()
    items = report.measured[::-1]  # the first one on top
    figure, axes = plt.subplots(figsize=(9, 1.6 + 0.55 * len(items)), layout="constrained")
    begin = [0.0] * len(items)
    for stage in STAGES:
        values = [1e3 * item.stages.get(stage, 0.0) for item in items]
        if not any(values):
            continue
        axes.barh(range(len(items)), values, left=begin, color=_COLOURS[stage], label=stage, height=0.62)
        begin = [a + b for a, b in zip(begin, values, strict=True)]
    marked = False
    for place, (item, end) in enumerate(zip(items, begin, strict=True)):
        axes.text(end + 0.01 * max(begin), place, f"{1e3 * item.seconds:,.0f} ms", va="center", fontsize=9)
        peak = report.peaks.get(item.choice.precision)
        if peak:
            least = 1e3 * sum(item.flops.values()) / peak
            label = None if marked else "operations at the rate of matrix products"
            axes.plot([least, least], [place - 0.4, place + 0.4], color="black", linewidth=1.6, label=label)
            marked = True
    axes.set_yticks(range(len(items)), [str(item.choice) for item in items])
    axes.set_xlim(0, 1.14 * max(begin))
    axes.set_xlabel("milliseconds a photo")
    axes.set_title(f"{report.settings.model}, {report.settings.options.get('top', 1000):,} proposals", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)
