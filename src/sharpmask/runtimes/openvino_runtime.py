"""OpenVINO on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sharpmask.errors import ConfigError, MissingExtraError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.runtimes.cpu import has_bf16
from sharpmask.runtimes.graph_runtime import prepare_graphs
from sharpmask.runtimes.prepared import Prepared


def prepare_openvino(network: DeepMask | SharpMask, precision: str, device: torch.device) -> Prepared:
    """See `prepare`."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", "the runtime openvino") from error
    if device.type != "cpu":
        raise ConfigError(f"openvino works on the CPU here, not on '{device}'; take the runtime torch there")
    if precision == "bf16" and not has_bf16():
        raise ConfigError("openvino:bf16: this CPU has no bf16 instructions; take openvino:fp32")
    core = openvino.Core()
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }

    def load(model: bytes) -> Any:
        return core.compile_model(core.read_model(model), "CPU", config).create_infer_request()

    return prepare_graphs(network, "openvino", precision, device, load, _run)


def _run(request: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The results are copies: the request's own are written over by the next call."""
    arrays = [tensor.contiguous().numpy() for tensor in tensors]
    results = request.infer(arrays, share_inputs=True, share_outputs=False)
    return [torch.from_numpy(array) for array in results.values()]
