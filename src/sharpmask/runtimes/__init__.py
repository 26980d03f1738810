"""Runtimes: one network in PyTorch, ONNX Runtime or OpenVINO, with the same numbers behind the same interface."""

from sharpmask.runtimes.choice import fastest, parse_runtime, with_runtime
from sharpmask.runtimes.dispatch import RUNTIMES, prepare
from sharpmask.runtimes.prepared import Prepared

__all__ = ["RUNTIMES", "Prepared", "fastest", "parse_runtime", "prepare", "with_runtime"]
