"""The results as text and as JSON."""

import os
import platform
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch

import sharpmask
from sharpmask.benchmark.accuracy import METRICS
from sharpmask.benchmark.run import Measured, Report
from sharpmask.benchmark.stages import STAGES


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on, and with what."""
    found: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "sharpmask": sharpmask.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _peak(report: Report, precision: str) -> float | None:
    """The rate that limits a precision. Where the processor is slower in it than in fp32 it has no instructions for it;
    PyTorch's rate then limits nothing."""
    rate = report.peaks.get(precision)
    return None if rate is None or rate < report.peaks.get("fp32", 0.0) else rate


def share_of_peak(report: Report, measured: Measured) -> float | None:
    """Operations over those that the machine's matrix products do in the same time, at the choice's precision; None
    where that precision has no rate that limits it."""
    peak = _peak(report, measured.choice.precision)
    return None if peak is None else sum(measured.flops.values()) / measured.seconds / peak


def ratio_to(rounds: Sequence[float], measured: Measured) -> float:
    """How many times faster than something else: the median of the rounds' ratios."""
    return statistics.median(other / own for other, own in zip(rounds, measured.rounds, strict=True))


def to_dict(report: Report) -> dict[str, Any]:
    """Everything in plain JSON types; seconds, bytes, operations a second."""
    settings = report.settings
    yardstick = report.yardstick
    return {
        "machine": machine(report.device),
        "settings": {
            "model": settings.model,
            "photos": [str(photo) for photo in settings.photos],
            "size": settings.size,
            "scales": report.scales,
            "options": settings.options,
            "rounds": settings.rounds,
            "device": str(report.device),
        },
        "peaks": report.peaks,
        "choices": [
            {
                "runtime": item.choice.runtime,
                "precision": item.choice.precision,
                "seconds": {"median": item.seconds, "low": min(item.rounds), "high": max(item.rounds)},
                "rounds": item.rounds,
                "stages": item.stages,
                "flops": item.flops,
                "share_of_peak": share_of_peak(report, item),
                "images_per_second": {
                    "single": 1 / item.seconds,
                    "folder": item.folder,
                    "dense": {str(count): rate for count, rate in item.batches.items()},
                },
                "peak_memory": item.memory,
                "times_faster_than_yardstick": None if yardstick is None else ratio_to(yardstick.rounds, item),
                "recall": None if item.accuracy is None else _recall(item),
            }
            for item in report.measured
        ],
        "yardstick": None
        if yardstick is None
        else {
            "seconds": statistics.median(yardstick.rounds),
            "rounds": yardstick.rounds,
            "mean_iou_of_masks": yardstick.agreement,
        },
        "failed": {str(choice): reason for choice, reason in report.failed.items()},
    }


def to_text(report: Report) -> str:
    """Tables in Markdown."""
    about = machine(report.device)
    place = about.get("gpu") or f"{about['processor']}, {about['threads']} threads"
    peaks = ", ".join(f"{rate / 1e9:,.0f} ({precision})" for precision, rate in report.peaks.items())
    scales = ", ".join(f"{scale:g}" for scale in report.scales)
    first = report.measured[0]
    lines = [
        f"{report.settings.model}, {len(report.settings.photos)} photos, scales {scales}, {report.settings.rounds} "
        f"rounds; {about['date']}, {place}, torch {about['torch']}",
        f"matrix products, 10^9 operations a second: {peaks}",
        f"a photo takes {sum(first.flops.values()) / 1e9:,.1f} x 10^9 operations",
        "",
        *_table(_summary(report)),
        "",
        "Milliseconds by stage, and the share of the matrix products' rate:",
        "",
        *_table(_stages(report)),
    ]
    if report.yardstick is not None:
        plain = report.yardstick
        lines += [
            "",
            f"straightforward implementation: {1e3 * statistics.median(plain.rounds):,.0f} ms; mean IoU of its masks "
            f"with ours {plain.agreement:.3f}",
        ]
    lines += [f"not measured: {choice}: {reason}" for choice, reason in report.failed.items()]
    return "\n".join(lines)


def _summary(report: Report) -> list[list[str]]:
    header = ["", "ms a photo [range]", "photos/s", "in a folder", "dense 1 / 4 at a time", "of peak", "peak memory"]
    first = report.measured[0]
    header.append(f"times {first.choice}")
    header += ["times straightforward"] if report.yardstick else []
    header += [f"{metric} (change)" for metric in METRICS] if first.accuracy else []
    rows = [header]
    for item in report.measured:
        share = share_of_peak(report, item)
        row = [
            str(item.choice),
            f"{1e3 * item.seconds:,.0f} [{1e3 * min(item.rounds):,.0f}, {1e3 * max(item.rounds):,.0f}]",
            f"{1 / item.seconds:.2f}",
            f"{item.folder:.2f}",
            " / ".join(f"{rate:.2f}" for rate in item.batches.values()),
            "–" if share is None else f"{100 * share:.0f} %",
            "–" if item.memory is None else f"{item.memory / 1e6:,.0f} MB",
            f"{ratio_to(first.rounds, item):.2f}",
        ]
        if report.yardstick is not None:
            row.append(f"{ratio_to(report.yardstick.rounds, item):.1f}")
        if item.accuracy is not None:
            for metric in METRICS:
                text = f"{item.accuracy.recall.value(metric):.4f}"
                if item.accuracy.change is not None:
                    change = item.accuracy.change[metric]
                    text += f" ({change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}])"
                row.append(text)
        rows.append(row)
    return rows


def _stages(report: Report) -> list[list[str]]:
    names = [stage for stage in STAGES if any(stage in item.stages for item in report.measured)]
    rows = [["", *names]]
    for item in report.measured:
        peak = _peak(report, item.choice.precision)
        row = [str(item.choice)]
        for stage in names:
            text = f"{1e3 * item.stages[stage]:,.1f}" if stage in item.stages else "–"
            if peak and item.flops.get(stage) and stage in item.stages:
                text += f" ({100 * item.flops[stage] / item.stages[stage] / peak:.0f} %)"
            row.append(text)
        rows.append(row)
    return rows


def _table(rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]]


def _recall(item: Measured) -> dict[str, Any]:
    assert item.accuracy is not None
    change = item.accuracy.change
    return {
        metric: {
            **item.accuracy.recall.areas["segm"]["all"].estimates[metric].to_dict(),
            "change": None if change is None else change[metric].to_dict(),
        }
        for metric in METRICS
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
