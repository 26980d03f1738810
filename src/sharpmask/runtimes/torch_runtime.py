"""PyTorch, tuned: folded weights, channels last, fused refinement, bf16 where the hardware has it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sharpmask.errors import ConfigError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.runtimes.cpu import has_bf16
from sharpmask.runtimes.parts import Parts
from sharpmask.runtimes.prepared import Prepared


def prepare_torch(network: DeepMask | SharpMask, precision: str, device: torch.device) -> Prepared:
    """See `prepare`.

    `torch.compile` is left out: it takes a minute at every start, and what it gains on a CPU OpenVINO gains at once.
    """
    if precision == "bf16":
        there = torch.cuda.is_bf16_supported() if device.type == "cuda" else has_bf16()
        if not there:
            raise ConfigError(f"torch:bf16: this {device.type.upper()} has no bf16 instructions; take torch:fp32")
    elif precision != "fp32":
        raise ConfigError(f"torch:{precision}: the runtime torch has fp32 and bf16; take onnx or openvino for int8")
    return torch_prepared(Parts(network, cells=True), precision, device)


def torch_prepared(parts: Parts, precision: str, device: torch.device) -> Prepared:
    """Parts that are moved to `device` and run as they are."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    parts = parts.to(device, dtype)
    parts.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def dense(images: Tensor) -> Sequence[Tensor]:
        with torch.inference_mode():
            score_logits, *rest = parts.dense(images.to(dtype).contiguous(memory_format=torch.channels_last))
            return score_logits.float(), *rest

    def decode(crops: Sequence[Tensor]) -> Tensor:
        with torch.inference_mode():
            return parts.decode(*crops).float()

    return Prepared(
        parts.spec,
        runtime="torch",
        precision=precision,
        device=device,
        steps=parts.steps,
        run_dense=dense,
        run_decode=decode,
        deepmask=parts.dense.deepmask,
    )
