"""A few lines to write ONNX graphs by hand: values are names, Python numbers and arrays become constants."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sharpmask.export.trace import OPSET

# The name of a tensor in the graph, or what becomes a constant (integers: int64, floats: float32).
Value = str | int | float | np.ndarray | Sequence[int]
# Old enough for every runtime that has the operators of OPSET.
IR_VERSION = 9


class GraphBuilder:
    """A graph that grows operator by operator; each call gives the names of its results."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self._constants: dict[Any, Any] = {}
        self._weights: dict[str, Any] = {}

    def __call__(self, kind: str, *inputs: Value, **attributes: Any) -> str:
        """Add one operator with one result."""
        return self.several(kind, *inputs, outputs=1, **attributes)[0]

    def several(self, kind: str, *inputs: Value, outputs: int, **attributes: Any) -> list[str]:
        """Add one operator with several results."""
        from onnx import helper

        names = [f"{kind.lower()}_{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, [self.name(value) for value in inputs], names, **attributes))
        return names

    def name(self, value: Value) -> str:
        """The name of a value; numbers and arrays are stored, equal ones once."""
        from onnx import numpy_helper

        if isinstance(value, str):
            return value
        array = np.asarray(value)
        if array.dtype.kind in "if":
            array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return str(self._constants[key].name)

    def vector(self, *values: Value) -> str:
        """Scalars, one after the other."""
        return self("Concat", *(self("Reshape", value, [1]) for value in values), axis=0)

    def size(self, value: Value, axis: int) -> str:
        """A tensor's length along an axis, a scalar."""
        return self("Gather", self("Shape", value), axis)

    def inline(self, model: Any, name: str, inputs: Sequence[str]) -> list[str]:
        """Add all operators of a model, its inputs bound to values of this graph. A model may be added several times:
        its weights are stored once for each name.

        Returns: the names of its outputs.
        """
        prefix = f"{name}_{len(self.nodes)}"
        graph = model.graph
        names = dict(zip((item.name for item in graph.input), inputs, strict=True))
        for tensor in graph.initializer:
            names[tensor.name] = f"{name}.{tensor.name}"
            if names[tensor.name] not in self._weights:
                self._weights[names[tensor.name]] = _renamed(tensor, names[tensor.name])
        names[""] = ""
        for node in graph.node:
            copied = type(node)()
            copied.CopyFrom(node)
            del copied.input[:], copied.output[:], copied.metadata_props[:]
            copied.name = f"{prefix}.{node.name}"
            copied.input.extend(names[item] for item in node.input)
            for item in node.output:
                names[item] = f"{prefix}.{item}" if item else ""
                copied.output.append(names[item])
            self.nodes.append(copied)
        return [names[item.name] for item in graph.output]

    def model(
        self,
        name: str,
        inputs: Sequence[Any],
        outputs: Sequence[tuple[str, str, Any]],
        metadata: dict[str, str],
        description: str,
    ) -> Any:
        """The finished model.

        Args:
            inputs: ONNX value infos.
            outputs: (value in the graph, name outside, value info's type and shape as a pair).
            metadata: text for the file's header.
            description: for people.
        """
        from onnx import helper

        infos = []
        for value, outside, (kind, shape) in outputs:
            self.nodes.append(helper.make_node("Identity", [value], [outside]))
            infos.append(helper.make_tensor_value_info(outside, kind, shape))
        tensors = [*self._constants.values(), *self._weights.values()]
        graph = helper.make_graph(self.nodes, name, list(inputs), infos, tensors)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="sharpmask")
        model.doc_string = description
        helper.set_model_props(model, metadata)
        return model


def _renamed(tensor: Any, name: str) -> Any:
    copied = type(tensor)()
    copied.CopyFrom(tensor)
    copied.name = name
    return copied
