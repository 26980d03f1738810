"""What is compared: one network in several runtimes and precisions."""

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from sharpmask.checkpoints import load_network
from sharpmask.errors import ConfigError, SharpMaskError

# Runtime and precision; "eager" is the network as it is trained, without any preparation.
KNOWN = (
    ("eager", "fp32"),
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("onnx", "fp32"),
    ("onnx", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)


@dataclass(frozen=True)
class Choice:
    """One column of the comparison."""

    runtime: str
    precision: str

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


def parse_choices(text: str | None) -> list[Choice]:
    """ "eager,torch:bf16" and so on; a runtime alone stands for all its precisions, None for everything.

    Raises:
        ConfigError: an unknown runtime, or one without that precision.
    """
    if text is None:
        return [Choice(*pair) for pair in KNOWN]
    chosen: dict[Choice, None] = {}
    for part in text.split(","):
        runtime, _, precision = part.strip().partition(":")
        found = [Choice(*pair) for pair in KNOWN if pair[0] == runtime and precision in ("", pair[1])]
        if not found:
            raise ConfigError(f"no runtime '{part}'; there are: {', '.join(':'.join(pair) for pair in KNOWN)}")
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def prepare(model: str, choice: Choice, device: torch.device) -> Any:
    """The network of a model in the chosen runtime: an object with `spec`, `dense` and `decode` (see `Proposer`).

    Raises:
        SharpMaskError: the runtime is not installed, or cannot do this.
    """
    network = load_network(model)
    if choice.runtime == "eager":
        return network.to(device)
    try:
        runtimes = importlib.import_module("sharpmask.runtimes")
    except ImportError as error:
        raise ConfigError(f"the runtime '{choice.runtime}' is not part of this installation") from error
    return runtimes.prepare(network, runtime=choice.runtime, precision=choice.precision, device=device)


def prepare_all(
    model: str, choices: Sequence[Choice], device: torch.device
) -> tuple[dict[Choice, Any], dict[Choice, str]]:
    """The networks that can be prepared here, and for the others why not.

    Raises:
        ConfigError: none can.
    """
    ready, failed = {}, {}
    for choice in choices:
        try:
            ready[choice] = prepare(model, choice, device)
        except SharpMaskError as error:
            failed[choice] = str(error)
    if not ready:
        raise ConfigError("none of the runtimes can be used: " + "; ".join(f"{c}: {why}" for c, why in failed.items()))
    return ready, failed


def load_yardstick(path: str) -> ModuleType:
    """A Python file with the functions `prepare`, `propose` and `agreement` of benchmarks/straightforward.py.

    Raises:
        ConfigError: no such file, or without these.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file; the yardstick is benchmarks/straightforward.py of the sources")
    spec = importlib.util.spec_from_file_location("sharpmask_yardstick", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    missing = [name for name in ("prepare", "propose", "agreement") if not hasattr(module, name)]
    if missing:
        raise ConfigError(f"{path}: has no function {' or '.join(missing)}")
    return module
