"""The parts of a network as ONNX graphs, by PyTorch's own exporter."""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sharpmask.errors import MissingExtraError
from sharpmask.export.network import DecodePart, DensePart

OPSET = 18


def check_installed(target: str) -> None:
    """MissingExtraError that names the first missing package for an export to "onnx" or "openvino"."""
    packages = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino")}[target]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, target, f"an export to {target}")


def trace_dense(part: DensePart) -> Any:
    """`DensePart` as an ONNX model that takes images of any size."""
    spec = part.network.spec
    side = spec.stride * (spec.grid_side + 2)
    return _trace(part, (torch.zeros(1, 3, side, side),))


def trace_decode(part: DecodePart, encoding: int, crops: Sequence[tuple[int, int]]) -> Any:
    """`DecodePart` as an ONNX model for any number of windows.

    Args:
        encoding: length of the encodings.
        crops: channels and side of each skip's crops.
    """
    count = 3
    shapes = [(count, encoding), *((count, channels, side, side) for channels, side in crops)]
    windows = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(count, 1)
    return _trace(part, (windows, torch.ones(2), tuple(torch.zeros(shape) for shape in shapes)))


def _trace(part: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The ONNX model of a module, which must do the same whatever the sizes that are open.

    PyTorch could follow open sizes by symbolic arithmetic, which takes several times as long and adds operators. The
    parts are written so that nothing depends on them, and every exported graph is checked at other sizes.
    """
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # about PyTorch's own inside
        logger.setLevel(logging.ERROR)  # "torchvision is not installed"
        try:
            program = torch.onnx.export(part.eval(), inputs, dynamo=True, opset_version=OPSET, verbose=False)
        finally:
            logger.setLevel(level)
    assert program is not None  # None only where a file is written
    return program.model_proto
