"""ONNX Runtime on the CPU."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sharpmask.errors import ConfigError, MissingExtraError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.runtimes.graph_runtime import prepare_graphs
from sharpmask.runtimes.prepared import Prepared


def prepare_onnx(network: DeepMask | SharpMask, precision: str, device: torch.device) -> Prepared:
    """See `prepare`."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "onnx", "the runtime onnx") from error
    if device.type != "cpu":
        raise ConfigError(f"onnx works on the CPU here, not on '{device}'; take the runtime torch there")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would go on spinning while PyTorch's work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3

    def load(model: bytes) -> Any:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    return prepare_graphs(network, "onnx", precision, device, load, _run)


def _run(session: Any, tensors: Sequence[Tensor]) -> list[Tensor]:
    names = [value.name for value in session.get_inputs()]
    feeds = {name: tensor.contiguous().numpy() for name, tensor in zip(names, tensors, strict=True)}
    return [torch.from_numpy(array) for array in session.run(None, feeds)]
