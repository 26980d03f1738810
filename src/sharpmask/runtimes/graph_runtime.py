"""What runtimes that take the network as ONNX graphs have in common."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.runtimes.int8 import builder_for
from sharpmask.runtimes.onnx_graph import decode_graph, dense_graph
from sharpmask.runtimes.parts import Parts
from sharpmask.runtimes.prepared import Prepared

_S = TypeVar("_S")


def prepare_graphs(
    network: DeepMask | SharpMask,
    runtime: str,
    precision: str,
    device: torch.device,
    load: Callable[[bytes], _S],
    call: Callable[[_S, Sequence[Tensor]], list[Tensor]],
) -> Prepared:
    """The network as two sessions, for the dense run and for decoding.

    Args:
        load: makes a session of an ONNX model.
        call: runs a session on its inputs, in their order, and returns tensors of its own.
    """
    parts = Parts(network)
    dense, decode = (
        load(graph(parts, builder_for(parts, network, precision, runtime=runtime)))
        for graph in (dense_graph, decode_graph)
    )
    return Prepared(
        parts.spec,
        runtime=runtime,
        precision=precision,
        device=device,
        steps=parts.steps,
        run_dense=lambda images: call(dense, [images]),
        run_decode=lambda crops: call(decode, crops)[0],
    )
