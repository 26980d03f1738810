"""A training of a few steps on `sharpmask sample`, as several benchmarks time it."""

import json
import statistics
import subprocess
import sys
from pathlib import Path


def write_sample(folder: Path) -> None:
    """The data set, into a folder."""
    command = [sys.executable, "-m", "sharpmask.cli.main", "sample", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def arguments(
    annotations: Path, images: Path, output: Path, config: str, *, steps: int, workers: int, threads: int
) -> list[str]:
    """What follows `sharpmask`: stage 1 only, on the CPU, a log line every 5 steps."""
    fields = {
        "annotations": annotations,
        "images": images,
        "output": output,
        "deepmask.steps": steps,
        "sharpmask.steps": 0,
        "workers": workers,
        "threads": threads,
        "log_every": 5,
        "checkpoint_every": steps,
        "device": "cpu",
    }
    return ["train", "--config", config, *(f"{name}={value}" for name, value in fields.items())]


def patches_per_second(output: Path) -> float:
    """The median over the log lines after the first."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return statistics.median([line["patches_per_second"] for line in lines if "patches_per_second" in line][1:])
