"""From a network to one that is ready in a runtime."""

from typing import Any

import torch

from sharpmask.errors import ConfigError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.proposals.proposer import pick_device
from sharpmask.runtimes.prepared import Prepared

# runtime -> its precisions
RUNTIMES = {"torch": ("fp32", "bf16"), "onnx": ("fp32", "int8"), "openvino": ("fp32", "bf16", "int8")}


def prepare(
    network: DeepMask | SharpMask,
    *,
    runtime: str = "torch",
    precision: str = "fp32",
    device: str | torch.device | None = None,
) -> Prepared:
    """A network in a runtime, for `Proposer` and others that call `dense` and `decode`. The network stays as it is.

    Args:
        network: of any spec.
        runtime: "torch", "onnx" or "openvino".
        precision: "fp32"; "bf16" (torch, openvino) where the processor has it; "int8" (onnx, openvino) for models that
            `sharpmask quantize` wrote.
        device: as for `Proposer`; all but torch work on the CPU only.

    Raises:
        ConfigError: an unknown runtime or precision, or one that this machine cannot do.
        MissingExtraError: the runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise ConfigError(f"no runtime '{runtime}'; there are: {', '.join(RUNTIMES)}")
    if precision not in RUNTIMES[runtime]:
        raise ConfigError(f"{runtime}:{precision}: the runtime {runtime} has {', '.join(RUNTIMES[runtime])}")
    chosen = torch.device("cpu") if device is None and runtime != "torch" else pick_device(device)
    function: Any
    if runtime == "torch":
        from sharpmask.runtimes.torch_runtime import prepare_torch as function
    elif runtime == "onnx":
        from sharpmask.runtimes.onnx_runtime import prepare_onnx as function
    else:
        from sharpmask.runtimes.openvino_runtime import prepare_openvino as function
    return function(network, precision, chosen)
