"""What users write for a runtime, and the automatic choice: the fastest that is installed, measured once and kept."""

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

import sharpmask
from sharpmask.checkpoints.download import cache_folder
from sharpmask.errors import ConfigError, SharpMaskError
from sharpmask.files import atomic_write, make_folder
from sharpmask.networks.specs import ModelSpec
from sharpmask.proposals.proposer import pick_device
from sharpmask.runtimes.dispatch import RUNTIMES, prepare
from sharpmask.runtimes.int8 import Calibration

# Needs nothing but PyTorch, and gives the trained network's numbers up to rounding.
DEFAULT_RUNTIME = "torch"
# The packages that each runtime needs.
PACKAGES = {"torch": ("torch",), "onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino")}
# The photo that candidates are timed on: at scale one, with this many windows; a photo has 4.3 times the pixels at its
# seven scales, padding included, and 1,000 windows.
_PHOTO, _WINDOWS = (480, 640), 64
_PIXELS, _BATCHES = 4.3, 1000 / _WINDOWS
_ROUNDS = 3
MOST_LOST = 0.002  # of AR


def parse_runtime(text: str) -> tuple[str, str]:
    """ "onnx" or "openvino:bf16" as runtime and precision; fp32 where none is given.

    Raises:
        ConfigError: there is no such runtime, or it has no such precision.
    """
    runtime, _, precision = text.partition(":")
    precision = precision or "fp32"
    if runtime not in RUNTIMES or precision not in RUNTIMES[runtime]:
        known = ", ".join(f"{name}:{kind}" for name, kinds in RUNTIMES.items() for kind in kinds)
        raise ConfigError(f"no runtime '{text}'; there are: eager, auto, {known}")
    return runtime, precision


def with_runtime(
    network: Any,
    runtime: str | None,
    device: str | torch.device | None = None,
    *,
    say: Callable[[str], None] | None = None,
) -> Any:
    """A network as `Proposer` takes it: prepared for a runtime, or as it is.

    Args:
        network: DeepMask or SharpMask.
        runtime: "eager": the network itself; "auto": the fastest; otherwise as for `parse_runtime`. None: the default.
        device: as for `Proposer`; a runtime that works on the CPU only takes that where none is given.
        say: is told what "auto" has chosen; None: standard error.

    Raises:
        ConfigError: no such runtime, or one that this machine cannot do.
        MissingExtraError: it is not installed.
    """
    runtime = runtime or DEFAULT_RUNTIME
    if runtime == "eager":
        return network
    if runtime == "auto":
        return fastest(network, device, say=say or (lambda text: print(text, file=sys.stderr)))
    name, precision = parse_runtime(runtime)
    return prepare(network, runtime=name, precision=precision, device=device)


def fastest(network: Any, device: str | torch.device | None, *, say: Callable[[str], None]) -> Any:
    """The network in the fastest of the installed runtimes that give up at most `MOST_LOST` of AR.

    That is fp32, and int8 where the model's file says that so little is lost. On a CPU each is timed for a few seconds,
    once for a machine, architecture, number of threads and set of versions; the choice is kept in the cache folder. On
    other devices it is PyTorch.
    """
    chosen_device = pick_device(device)
    if chosen_device.type != "cpu":
        say(f"runtime: torch:fp32, which is the one for {chosen_device.type}")
        return prepare(network, device=chosen_device)
    names = accurate(network)
    if len(names) == 1:
        say("runtime: torch:fp32; no other is installed, see docs/runtimes.md")
        return prepare(network, device="cpu")
    file, key = cache_folder() / "runtimes.json", _key(network.spec, names)
    kept = _read(file).get(key)
    if kept in names:
        with suppress(SharpMaskError):  # it worked before: measured again if it does no more
            prepared = _prepare(network, kept)
            say(f"runtime: {kept}, the fastest when it was measured (kept in {file})")
            return prepared
    candidates: dict[str, Any] = {}
    for name in names:
        try:
            candidates[name] = _prepare(network, name)
        except SharpMaskError as error:
            say(f"runtime {name} cannot be used: {error}")
    seconds = photo_seconds(candidates)
    best = min(seconds, key=seconds.__getitem__)
    told = ", ".join(f"{name} {value:.2f} s" for name, value in sorted(seconds.items(), key=lambda item: item[1]))
    say(f"runtime: {best}, the fastest here for a photo of 640x480: {told}")
    _keep(file, key, best)
    return candidates[best]


def accurate(network: Any) -> list[str]:
    """The runtimes and precisions that are installed and known to cost next to no AR with this network."""
    installed = [name for name, packages in PACKAGES.items() if all(map(importlib.util.find_spec, packages))]
    calibration = Calibration.of(network)
    small = calibration is not None and calibration.change is not None and calibration.change >= -MOST_LOST
    return [
        f"{name}:{precision}"
        for name in installed
        for precision in RUNTIMES[name]
        if precision == "fp32" or (precision == "int8" and small)
    ]


def _prepare(network: Any, name: str) -> Any:
    runtime, precision = parse_runtime(name)
    return prepare(network, runtime=runtime, precision=precision, device="cpu")


@torch.inference_mode()
def photo_seconds(candidates: dict[str, Any]) -> dict[str, float]:
    """About how long the networks take for a photo of 640 x 480, in seconds; in turns, the best of a few rounds."""
    spec = next(iter(candidates.values())).spec
    sides = [-(-side // spec.stride) * spec.stride + spec.patch_size for side in _PHOTO]
    images = torch.rand(1, 3, *sides).contiguous(memory_format=torch.channels_last)
    best = {name: [float("inf"), float("inf")] for name in candidates}
    for number in range(_ROUNDS + 1):  # the first one warms up
        for name, network in candidates.items():
            begin = time.perf_counter()
            dense = network.dense(images)
            middle = time.perf_counter()
            places = [torch.arange(_WINDOWS) % size for size in dense.score_logits.shape]
            network.decode(dense, *places)
            took = middle - begin, time.perf_counter() - middle
            if number:
                best[name] = [min(old, new) for old, new in zip(best[name], took, strict=True)]
    return {name: _PIXELS * dense + _BATCHES * decode for name, (dense, decode) in best.items()}


def _key(spec: ModelSpec, names: Sequence[str]) -> str:
    """What the speed depends on; not the weights."""
    packages = sorted({package for name in names for package in PACKAGES[parse_runtime(name)[0]]})
    parts = [
        {**dataclasses.asdict(spec), "name": None, "weights": None, "licence": None},
        {package: importlib.metadata.version(package) for package in packages},
        list(names),
        [sharpmask.__version__, platform.node(), _processor(), torch.get_num_threads()],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as info:
        for line in info:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _read(file: Path) -> dict[str, str]:
    """The choices kept so far; none where the file is missing or damaged."""
    with suppress(OSError, ValueError):
        kept = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(kept, dict):
            return kept
    return {}


def _keep(file: Path, key: str, name: str) -> None:
    """Write a choice down; where that is not possible it is measured again next time."""
    with suppress(SharpMaskError, OSError):
        make_folder(file.parent)
        with atomic_write(file) as temporary:
            temporary.write_text(json.dumps({**_read(file), key: name}, indent=1) + "\n", encoding="utf-8")
