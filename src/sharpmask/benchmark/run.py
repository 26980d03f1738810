"""The measurement: every choice does every photo in every round, so that what else the machine does meets all alike."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sharpmask.benchmark.accuracy import Accuracy, measure_recall
from sharpmask.benchmark.candidates import Choice, load_yardstick, prepare, prepare_all
from sharpmask.benchmark.memory import peak_memory
from sharpmask.benchmark.peak import matrix_peaks
from sharpmask.benchmark.stages import dense_total, split_dense, stage_flops
from sharpmask.checkpoints import load_network
from sharpmask.errors import ConfigError
from sharpmask.images import read_image
from sharpmask.proposals.clock import Clock
from sharpmask.proposals.folder import propose_files
from sharpmask.proposals.proposer import Proposer, pick_device
from sharpmask.proposals.result import Proposals

BATCH = 4


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        photos: image files.
        model: a bundled model or a .safetensors file.
        choices: runtimes and precisions.
        options: of `Proposer`: top, zoom, scales, border, …
        device: as for `Proposer`.
        rounds: how often each choice does each photo.
        size: (H, W) to resize the photos to beforehand; None takes them as they are.
        memory: measure the peak memory, in a process of its own for each choice.
        yardstick: a file like benchmarks/straightforward.py to compare with.
        annotations, images: COCO annotations and the folder of their photos, to measure what a choice costs in AR.

    Raises:
        ConfigError: a size without pixels.
    """

    photos: Sequence[Path]
    model: str
    choices: Sequence[Choice]
    options: dict[str, Any] = field(default_factory=dict)
    device: str | None = None
    rounds: int = 5
    size: tuple[int, int] | None = None
    memory: bool = True
    yardstick: str | None = None
    annotations: str | None = None
    images: str | None = None

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise ConfigError(f"size {self.size[0]} {self.size[1]}: height and width must be at least 1")


@dataclass
class Measured:
    """One choice.

    Attributes:
        rounds: seconds a photo, the mean over the photos, for each round.
        stages: seconds a photo by stage, medians over rounds and photos.
        flops: operations a photo by stage, mean over the photos.
        folder: photos a second through `propose_files`.
        batches: photos a second of the dense run at scale one, by photos at a time.
        memory: peak in bytes.
        accuracy: with annotations only.
    """

    choice: Choice
    rounds: list[float]
    stages: dict[str, float]
    flops: dict[str, float]
    folder: float = 0.0
    batches: dict[int, float] = field(default_factory=dict)
    memory: int | None = None
    accuracy: Accuracy | None = None

    @property
    def seconds(self) -> float:
        return statistics.median(self.rounds)


@dataclass
class Yardstick:
    """The straightforward implementation: seconds a photo in each round, and the mean IoU of its masks with ours."""

    rounds: list[float]
    agreement: float


@dataclass
class Report:
    """All results; `peaks` as from `matrix_peaks`, `failed` says why a choice could not be measured."""

    settings: Settings
    device: torch.device
    scales: tuple[float, ...]
    peaks: dict[str, float]
    measured: list[Measured]
    failed: dict[Choice, str]
    yardstick: Yardstick | None = None


def run(settings: Settings, tell: Callable[[str], None] = lambda text: None) -> Report:
    """Measure everything; `tell` gets a line now and then.

    Raises:
        SharpMaskError: an option or file that cannot be used, or no choice that works here.
    """
    if settings.rounds < 1:
        raise ConfigError(f"rounds {settings.rounds}: must be at least 1")
    if bool(settings.annotations) != bool(settings.images):
        raise ConfigError("the change in AR needs both the annotations and the folder of their images")
    device = pick_device(settings.device)
    yardstick = None if settings.yardstick is None else load_yardstick(settings.yardstick)
    networks, failed = prepare_all(settings.model, settings.choices, device)
    with _resized(settings.photos, settings.size) as photos:
        clocks = {choice: Clock(device) for choice in networks}
        proposers = {
            choice: Proposer(network, device=device, clock=clocks[choice], **settings.options)
            for choice, network in networks.items()
        }
        first = next(iter(proposers.values()))
        report = Report(settings, device, first.scales, {}, [], failed)
        rounds: dict[Choice, list[float]] = {choice: [] for choice in networks}
        stages: dict[Choice, list[dict[str, float]]] = {choice: [] for choice in networks}
        plain_rounds: list[float] = []
        with ExitStack() as stack:
            named = {choice: stack.enter_context(split_dense(networks[choice], clocks[choice])) for choice in networks}
            for number in range(-1, settings.rounds):  # the first one warms up: memory, caches, compilation
                tell(f"round {number + 1} of {settings.rounds}" if number >= 0 else "warming up")
                for precision, rate in matrix_peaks(device).items():
                    report.peaks[precision] = max(rate, report.peaks.get(precision, 0.0))
                for choice, proposer in proposers.items():
                    took = []
                    for photo in photos:
                        took.append(_time(proposer, photo))
                        if number >= 0:
                            if device.type == "cuda":  # a clock that waits for the device costs time itself
                                proposer.clock = clocks[choice]
                                proposer.propose(photo)
                            stages[choice].append(named[choice](clocks[choice].seconds))
                    if number >= 0:
                        rounds[choice].append(statistics.mean(took))
                if yardstick is not None and number >= 0:
                    plain_rounds.append(_time_yardstick(yardstick, settings, photos, first))
        flops = _mean_flops(settings, photos, first)
        for choice, proposer in proposers.items():
            tell(f"folder, batches and memory: {choice}")
            measured = Measured(choice, rounds[choice], _medians(stages[choice]), flops)
            if "dense" in measured.stages:
                measured.flops = dense_total(flops)
            proposer.clock = None
            measured.folder = _folder_rate(proposer, photos)
            measured.batches = {count: _dense_rate(proposer, photos[0], count) for count in (1, BATCH)}
            if settings.memory:
                task = partial(_propose_once, settings.model, choice, device, settings.options, photos[0])
                measured.memory = peak_memory(task)
            report.measured.append(measured)
        if yardstick is not None:
            report.yardstick = Yardstick(plain_rounds, _agreement(yardstick, settings, photos[0], first))
        if settings.annotations and settings.images:
            reference: Accuracy | None = None
            for measured in report.measured:
                tell(f"AR: {measured.choice}")
                measured.accuracy = measure_recall(
                    proposers[measured.choice], settings.annotations, settings.images, str(measured.choice), reference
                )
                reference = reference or measured.accuracy
    return report


def _time(proposer: Proposer, photo: Path) -> float:
    """Seconds from the file to the masks' run-length codes."""
    if proposer.device.type == "cuda":
        proposer.clock = None
        torch.cuda.synchronize(proposer.device)
    begin = time.perf_counter()
    proposer.propose(photo)
    if proposer.device.type == "cuda":
        torch.cuda.synchronize(proposer.device)
    return time.perf_counter() - begin


def _medians(laps: list[dict[str, float]]) -> dict[str, float]:
    return {stage: statistics.median(lap.get(stage, 0.0) for lap in laps) for stage in laps[0]}


def _mean_flops(settings: Settings, photos: Sequence[Path], proposer: Proposer) -> dict[str, float]:
    sizes = [read_image(photo).shape[:2] for photo in photos]
    counted = {
        size: stage_flops(
            load_network(settings.model).spec,
            (size[0], size[1]),
            proposer.scales,
            windows=proposer.top,
            border=proposer.border,
            tile_pixels=proposer.tile_pixels,
        )
        for size in set(sizes)
    }
    return {stage: statistics.mean(counted[size][stage] for size in sizes) for stage in counted[sizes[0]]}


def _folder_rate(proposer: Proposer, photos: Sequence[Path]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        propose_files(proposer, photos, Path(folder), overlay=False, progress=False)
        return len(photos) / (time.perf_counter() - begin)


@torch.inference_mode()
def _dense_rate(proposer: Proposer, photo: Path, count: int) -> float:
    """Photos a second when the network sees `count` of them at a time, at scale one, padding left out."""
    stride = proposer.network.spec.stride
    pixels = torch.from_numpy(read_image(photo)).permute(2, 0, 1)[None].to(proposer.device).float() / 255
    height, width = (max(proposer.network.spec.patch_size, side // stride * stride) for side in pixels.shape[2:])
    images = torch.nn.functional.interpolate(pixels, (height, width)).repeat(count, 1, 1, 1)
    images = images.contiguous(memory_format=torch.channels_last)
    took = []
    for _ in range(4):
        begin = time.perf_counter()
        proposer.network.dense(images)
        if proposer.device.type == "cuda":
            torch.cuda.synchronize(proposer.device)
        took.append(time.perf_counter() - begin)
    return count / statistics.median(took[1:])


def _propose_once(
    model: str, choice: Choice, device: torch.device, options: dict[str, Any], photo: Path
) -> torch.device:
    Proposer(prepare(model, choice, device), device=device, **options).propose(photo)
    return device


def _time_yardstick(yardstick: Any, settings: Settings, photos: Sequence[Path], proposer: Proposer) -> float:
    network = yardstick.prepare(load_network(settings.model))
    took = []
    for photo in photos:
        begin = time.perf_counter()
        yardstick.propose(network, str(photo), proposer.scales, proposer.top, proposer.threshold)
        took.append(time.perf_counter() - begin)
    return statistics.mean(took)


def _agreement(yardstick: Any, settings: Settings, photo: Path, proposer: Proposer) -> float:
    network = yardstick.prepare(load_network(settings.model))
    found: Proposals = proposer.propose(photo)
    plain = yardstick.propose(network, str(photo), proposer.scales, proposer.top, proposer.threshold)
    return float(yardstick.agreement(plain, found))


@contextmanager
def _resized(photos: Sequence[Path], size: tuple[int, int] | None) -> Iterator[list[Path]]:
    """Copies of the photos, resized where a size (H, W) is given, under names that differ."""
    with tempfile.TemporaryDirectory() as folder:
        copies = []
        for number, photo in enumerate(photos):
            pixels = read_image(photo)  # says early what cannot be read
            target = Path(folder) / f"{number}_{photo.name}"
            if size is None or pixels.shape[:2] == size:
                shutil.copy(photo, target)
            else:
                target = target.with_suffix(".jpg")
                image = Image.fromarray(np.asarray(pixels))
                image.resize((size[1], size[0]), Image.Resampling.BICUBIC).save(target, quality=95)
            copies.append(target)
        yield copies
