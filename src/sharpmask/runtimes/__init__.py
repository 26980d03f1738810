"""Runtimes: one network in PyTorch, ONNX Runtime or OpenVINO, with the same numbers behind the same interface."""

from sharpmask.runtimes.prepare import RUNTIMES, prepare
from sharpmask.runtimes.prepared import Prepared

__all__ = ["RUNTIMES", "Prepared", "prepare"]
