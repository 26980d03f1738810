"""Runtimes: one network in PyTorch, ONNX Runtime or OpenVINO, with the same numbers behind the same interface."""

from sharpmask.runtimes.choice import DEFAULT_RUNTIME, fastest, parse_runtime, with_runtime
from sharpmask.runtimes.dispatch import RUNTIMES, prepare
from sharpmask.runtimes.prepared import Prepared

__all__ = ["DEFAULT_RUNTIME", "RUNTIMES", "Prepared", "fastest", "parse_runtime", "prepare", "with_runtime"]
