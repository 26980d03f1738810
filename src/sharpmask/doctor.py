"""What `sharpmask doctor` finds out: versions, devices, models, and a self-test on a tiny picture."""

import importlib
import importlib.metadata
import importlib.util
import platform
import re
import time
from dataclasses import dataclass
from importlib import resources

import sharpmask
from sharpmask.errors import SharpMaskError

# distribution -> module to import, where it is not the distribution's name or where a part of it says more
MODULES = {
    "opencv-contrib-python-headless": "cv2",
    "pillow": "PIL.Image",
    "pyarrow": "pyarrow.parquet",
    "pycocotools": "pycocotools.mask",
    "pyyaml": "yaml",
    "ray": "ray.data",
    "safetensors": "safetensors.torch",
}
# Extras for those who work on this package, not for its users.
_DEVELOPMENT = ("docs", "test")


@dataclass(frozen=True)
class Finding:
    """One line of the report; `broken` when it is a fault and not merely absent."""

    subject: str
    text: str
    broken: bool = False

    def __str__(self) -> str:
        return f"{'BROKEN' if self.broken else '      '} {self.subject:<30} {self.text}"


def examine(model: str | None = None, device: str | None = None) -> list[Finding]:
    """All findings. `model`: what to test, a bundled name or a file; None: the default model if it is bundled."""
    findings = [
        Finding("sharpmask", sharpmask.__version__),
        Finding("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
    ]
    needed, optional = requirements()
    if not needed:
        findings.append(Finding("packages", "not known: sharpmask itself is not installed, only its source is there"))
    core = [_package(name) for name in needed]
    findings += core
    findings += [_package(name, extra) for extra, names in optional.items() for name in names]
    if any(finding.broken for finding in core):
        return [*findings, Finding("self-test", "not run: a package it needs is missing")]
    return [*findings, *_devices(), *_runtimes(), *_models(), self_test(model, device)]


def requirements() -> tuple[list[str], dict[str, list[str]]]:
    """The distributions that the installed package needs, and those of each extra, from its metadata; each once.

    Nothing where the package is not installed. An extra that is contained in another is told by its own name.
    """
    try:
        lines = importlib.metadata.requires("sharpmask") or []
    except importlib.metadata.PackageNotFoundError:
        return [], {}
    needed: list[str] = []
    optional: dict[str, list[str]] = {}
    listed = {"sharpmask"}
    for line in lines:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", line)
        if extra is None:
            needed.append(name)
        elif extra[1] not in _DEVELOPMENT and name not in listed:
            optional.setdefault(extra[1], []).append(name)
            listed.add(name)
    return needed, optional


def _package(name: str, extra: str | None = None) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    module = MODULES.get(name.lower(), name.replace("-", "_").lower())
    note = "" if extra is None else f"  [{extra}]"
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken compiled part raises nearly anything
        if version is None and extra is not None:
            return Finding(name, f"not installed (optional): pip install 'sharpmask[{extra}]'")
        if version is None:
            return Finding(name, f"not installed: pip install {name}", broken=True)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Finding(name, f"{version}, but cannot be imported ({reason}): install it again", broken=True)
    return Finding(name, (version or f"{module} of another distribution") + note)


def _devices() -> list[Finding]:
    import torch

    found = [Finding("cpu", f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        found.append(Finding(f"cuda:{index}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"))
    if len(found) == 1:
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        found.append(Finding("cuda", f"none found (this torch is built with {built})"))
    return found


def _runtimes() -> list[Finding]:
    """What the installed runtimes can run on; PyTorch is always one of them."""
    from sharpmask.runtimes.cpu import has_bf16

    found = [Finding("runtime torch", "fp32, bf16" if has_bf16() else "fp32; this processor has no bf16")]
    for name, ask in (("onnxruntime", _onnxruntime_providers), ("openvino", _openvino_devices)):
        if importlib.util.find_spec(name) is None:
            continue
        try:
            found.append(Finding(f"runtime {name}", ", ".join(ask())))
        except Exception as error:
            found.append(Finding(f"runtime {name}", f"fails: {type(error).__name__}: {error}", broken=True))
    return found


def _onnxruntime_providers() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _openvino_devices() -> list[str]:
    import openvino

    return list(openvino.Core().available_devices)


def _models() -> list[Finding]:
    from sharpmask.detection.store import BUNDLED
    from sharpmask.networks.specs import SPECS

    files = {spec.name: spec.weights for spec in SPECS.values() if spec.weights} | BUNDLED
    if not files:
        return [Finding("models", "none bundled with this version: train one, or give a .safetensors file")]
    found = []
    for name, file in files.items():
        there = (resources.files("sharpmask") / "weights" / file).is_file()
        text = "bundled" if there else f"its file {file} is missing: install sharpmask again"
        found.append(Finding(f"model {name}", text, broken=not there))
    return found


def self_test(model: str | None = None, device: str | None = None) -> Finding:
    """Propose on a tiny synthetic picture and check what comes out."""
    import numpy as np

    from sharpmask.checkpoints import DEFAULT_MODEL, load_network
    from sharpmask.networks.specs import SPECS
    from sharpmask.proposals.proposer import Proposer

    name = model or DEFAULT_MODEL
    if model is None and (name not in SPECS or SPECS[name].weights is None):
        return Finding("self-test", f"not run: no weights are bundled for {name}; name a file with --model")
    y, x = np.mgrid[:120, :160]
    picture = np.full((120, 160, 3), (60, 110, 70), np.uint8)
    picture[np.hypot(x - 85, y - 60) < 32] = (220, 60, 40)
    begin = time.perf_counter()
    try:
        proposals = Proposer(load_network(name), top=20, scales=[0], device=device).propose(picture)
        if len(proposals) == 0 or not np.isfinite(proposals.scores).all():
            return Finding("self-test", f"{name} finds nothing in a picture of a disc", broken=True)
        if proposals[:1].masks.sum() != proposals.areas[0]:
            return Finding("self-test", f"{name}: a mask's code does not give its area", broken=True)
    except SharpMaskError as error:
        return Finding("self-test", f"{name}: {error}", broken=True)
    except Exception as error:
        return Finding("self-test", f"{name} fails: {type(error).__name__}: {error}", broken=True)
    return Finding("self-test", f"{name}: {len(proposals)} masks in {time.perf_counter() - begin:.1f} s")
