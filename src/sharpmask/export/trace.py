"""A PyTorch module to an ONNX graph whose marked sizes are left open."""

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.export import Dim

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
    """`DensePart` as an ONNX model that takes images of any size, see `prepared`."""
    spec = part.network.spec
    side = spec.stride * (spec.grid_side + 2)
    return _trace(part, (torch.zeros(1, 3, side, side),), None)


def trace_decode(part: DecodePart, encoding: int, crops: Sequence[tuple[int, int]]) -> Any:
    """`DecodePart` as an ONNX model for any number of windows; `crops`: channels and side of each skip's crops."""
    count = 3
    shapes = [(count, channels, side, side) for channels, side in crops]
    inputs = (
        torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(count, 1),
        torch.ones(2),
        torch.zeros(count, encoding),
        tuple(torch.zeros(shape) for shape in shapes),
    )
    windows = Dim("windows", min=1, max=1 << 20)
    return _trace(part, inputs, ({0: windows}, None, {0: windows}, tuple({0: windows} for _ in shapes)))


def _trace(part: nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any) -> Any:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # about PyTorch's own inside
        logger.setLevel(logging.ERROR)  # "torchvision is not installed"
        try:
            program = torch.onnx.export(
                part.eval(), inputs, dynamo=True, dynamic_shapes=dynamic_shapes, opset_version=OPSET, verbose=False
            )
        finally:
            logger.setLevel(level)
    assert program is not None  # None only where a file is written
    return program.model_proto
