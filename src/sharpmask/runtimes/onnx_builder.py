"""ONNX graphs, written node by node: the few operations that these networks consist of.

Written by hand and not traced from PyTorch, because that takes a minute where this takes a moment, and because it
leaves nothing in the graph but the operations themselves.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from sharpmask.errors import MissingExtraError
from sharpmask.networks.layers import PaddedConv2d
from sharpmask.runtimes.cells import DoubledConv2d

OPSET = 18
_FAR = 2**31 - 1  # as an end of a slice: as far as the axis goes


class OnnxBuilder:
    """A growing graph; each method adds operations to values, given by name, and returns the name of the result.

    Raises:
        MissingExtraError: the package onnx is not installed.
    """

    def __init__(self, *, extra: str = "onnx") -> None:
        try:
            import onnx
        except ImportError as error:
            raise MissingExtraError("onnx", extra, "this runtime") from error
        self._helper, self._numpy, self._types = onnx.helper, onnx.numpy_helper, onnx.TensorProto
        self._nodes: list[Any] = []
        self._constants: dict[bytes, str] = {}
        self._initializers: list[Any] = []

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        name = f"{operation.lower()}_{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(operation, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: Tensor | np.ndarray | Sequence[float]) -> str:
        """Numbers, kept once; whole numbers of a list become int64, others fp32."""
        if isinstance(value, Tensor):
            array = value.detach().cpu().numpy()
        elif isinstance(value, np.ndarray):
            array = value
        else:
            array = np.array(value)
            array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        array = np.asarray(array, order="C")
        key = f"{array.dtype}{array.shape}".encode() + array.tobytes()
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._initializers.append(self._numpy.from_array(array, self._constants[key]))
        return self._constants[key]

    def relu(self, x: str) -> str:
        return self.add("Relu", x)

    def relu6(self, x: str) -> str:
        return self.add("Clip", x, self.constant(_number(0)), self.constant(_number(6)))

    def slice(self, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        return self.add("Slice", x, *(self.constant([value]) for value in (start, end, axis, step)))

    def pad(self, x: str, left: int, right: int, top: int, bottom: int) -> str:
        """As `symmetric_pad`, for maps that are at least as large as the padding."""
        widest = max(left, right, top, bottom)
        if widest == 0:
            return x
        if widest == 1:  # then the mirrored pixel is the edge's own
            return self.add("Pad", x, self.constant([0, 0, top, left, 0, 0, bottom, right]), mode="edge")
        for axis, before, after in ((3, left, right), (2, top, bottom)):
            parts = [x]
            if before:
                parts.insert(0, self.slice(x, before - 1, -_FAR, axis, -1))
            if after:
                parts.append(self.slice(x, -1, -after - 1, axis, -1))
            x = self.add("Concat", *parts, axis=axis) if len(parts) > 1 else x
        return x

    def weights_conv(self, x: str, weight: Tensor, bias: Tensor | None, **attributes: Any) -> str:
        """A convolution without padding."""
        inputs = [x, self.constant(weight)] + ([] if bias is None else [self.constant(bias)])
        return self.add("Conv", *inputs, kernel_shape=list(weight.shape[2:]), **attributes)

    def conv(self, x: str, conv: nn.Conv2d, activation: str = "") -> str:
        """A convolution of the network with its padding, and "relu" or "relu6" after it."""
        x = self.pad(x, *conv.pad) if isinstance(conv, PaddedConv2d | DoubledConv2d) else x
        y = self.activate(self.weights_conv(x, conv.weight, conv.bias, **steps_of(conv)), activation)
        return self.unfold(y) if isinstance(conv, DoubledConv2d) else y

    def activate(self, x: str, activation: str) -> str:
        if activation == "":
            return x
        return self.relu(x) if activation == "relu" else self.relu6(x)

    def unfold(self, x: str) -> str:
        """As `cells.to_pixels`."""
        return self.add("DepthToSpace", x, blocksize=2, mode="DCR")

    def linear_channels(self, x: str, linear: nn.Linear) -> str:
        """A linear layer over the channels of each cell (B, C, h, w)."""
        return self.weights_conv(x, linear.weight[:, :, None, None], linear.bias)

    def linear(self, x: str, linear: nn.Linear) -> str:
        """(N, C) -> (N, outputs)."""
        return self.add("Gemm", x, self.constant(linear.weight), self.constant(linear.bias), transB=1)

    def reshape(self, x: str, *shape: int) -> str:
        return self.add("Reshape", x, self.constant(list(shape)))

    def resize(self, x: str, factor: float, mode: str) -> str:
        """Enlarged by a factor, "nearest" or "bilinear" as PyTorch without aligned corners."""
        scales = self.constant([1.0, 1.0, float(factor), float(factor)])
        if mode == "nearest":
            how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        else:
            how = {"coordinate_transformation_mode": "half_pixel"}
        return self.add("Resize", x, "", scales, mode="nearest" if mode == "nearest" else "linear", **how)

    def model(self, inputs: Mapping[str, Sequence[Any]], outputs: Mapping[str, tuple[str, Sequence[Any]]]) -> bytes:
        """The whole graph.

        Args:
            inputs: names and shapes; letters are sizes that change.
            outputs: names to give to results, each with its value and shape.
        """
        import onnx

        nodes = [*self._nodes]
        for name, (value, _) in outputs.items():
            nodes.append(self._helper.make_node("Identity", [value], [name], name=f"{name}_out"))
        float32 = self._types.FLOAT
        graph = self._helper.make_graph(
            nodes,
            "sharpmask",
            [self._helper.make_tensor_value_info(name, float32, list(shape)) for name, shape in inputs.items()],
            [self._helper.make_tensor_value_info(name, float32, list(shape)) for name, (_, shape) in outputs.items()],
            self._initializers,
        )
        opset = [self._helper.make_opsetid("", OPSET)]
        model = self._helper.make_model(graph, opset_imports=opset, ir_version=10, producer_name="sharpmask")
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())


def _number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


def steps_of(conv: nn.Conv2d) -> dict[str, Any]:
    """A convolution's attributes but for its padding."""
    return {"strides": list(conv.stride), "dilations": list(conv.dilation), "group": conv.groups}
