"""DeepMask weights of public PyTorch re-implementations, by the names of their parameters.

These build their trunk from torchvision's ResNet-50, so that a state dict has keys such as `trunk.0.4.0.conv1.weight`,
`trunk.1.2.weight`, `maskBranch.0.0.weight`, `scoreBranch.1.weight` (github.com/foolwood/deepmask-pytorch and what
derives from it). Their layers are ours but for one: around 3x3 convolutions they mirror without the edge pixel,
we with it, as the original does. So the numbers are the same except within reach of a border.

Of a SharpMask only the DeepMask in it is understood: the refinement there is wider at the finest stage than
the original's, for which this package has no network.
"""

import dataclasses
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sharpmask.checkpoints.store import read_safetensors
from sharpmask.errors import ModelError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.specs import ModelSpec
from sharpmask.networks.trunk import ResNetTrunk

# Ours -> theirs. A convolution may stand behind its padding in a Sequential, its weight then is called `….1.weight`.
_LINEAR = {
    "encoder.reduce": ("trunk.1.0",),
    "encoder.encode": ("trunk.1.2",),
    "mask_head.linear": ("maskBranch.0.0", "maskBranch.0", "maskBranchDM.0.0", "maskBranchDM.0"),
    "score_head.hidden": ("scoreBranch.1",),
    "score_head.score": ("scoreBranch.4",),
}


def _frozen_names() -> dict[str, tuple[str, str]]:
    """Our frozen convolutions -> their convolution and its batch normalisation."""
    names = {"trunk.conv1": ("trunk.0.0", "trunk.0.1")}
    for stage, blocks in enumerate(ResNetTrunk.blocks, start=1):
        for block in range(blocks):
            ours, theirs = f"trunk.layer{stage}.{block}", f"trunk.0.{stage + 3}.{block}"
            for number in (1, 2, 3):
                names[f"{ours}.conv{number}"] = (f"{theirs}.conv{number}", f"{theirs}.bn{number}")
            if block == 0:
                names[f"{ours}.shortcut"] = (f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    return names


def import_state_dict(source: str | Path, *, name: str = "deepmask-pytorch") -> DeepMask:
    """The DeepMask of a re-implementation's checkpoint, in evaluation mode, fp32, on the CPU.

    Args:
        source: a `.safetensors` file, or one of torch.save with a state dict, plain or under "state_dict"; no code in
            it is run.
        name: of the resulting spec.

    Raises:
        ModelError: the file cannot be read, or parameters are missing, unknown or of other shapes.
    """
    state = _read(Path(source))
    try:
        converted = _convert(state)
        spec = _spec(converted, name)
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None
    network = DeepMask(spec)
    for key, value in network.state_dict().items():
        if converted[key].numel() != value.numel():
            raise ModelError(f"{source}: {key} has shape {tuple(converted[key].shape)}, not {tuple(value.shape)}")
        converted[key] = converted[key].reshape(value.shape)
    network.load_state_dict(converted)
    return network.eval()


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        state: Any = read_safetensors(path)[0]
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (
            OSError,
            RuntimeError,
            ValueError,
            EOFError,
            LookupError,
            AttributeError,
            pickle.UnpicklingError,
        ) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"{path} cannot be read as a PyTorch state dict: {reason}") from None
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path} holds no state dict")
    return {str(key).removeprefix("module."): value.detach().float() for key, value in state.items()}


def _convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters by name; linear layers still have their 1x1 or g x g convolution's shape."""
    used: set[str] = set()

    def take(key: str) -> Tensor:
        if key not in state:
            raise ModelError(f"has no '{key}', which a DeepMask of this kind has")
        used.add(key)
        return state[key]

    converted = {}
    for ours, (convolution, norm) in _frozen_names().items():
        wrapped = f"{convolution}.1.weight"
        converted[f"{ours}.weight"] = take(wrapped if wrapped in state else f"{convolution}.weight")
        scale = take(f"{norm}.weight") / torch.sqrt(take(f"{norm}.running_var") + 1e-5)
        converted[f"{ours}.scale"] = scale
        converted[f"{ours}.shift"] = take(f"{norm}.bias") - scale * take(f"{norm}.running_mean")
    for ours, names in _LINEAR.items():
        theirs = next((name for name in names if f"{name}.weight" in state), names[0])
        for kind in ("weight", "bias"):
            converted[f"{ours}.{kind}"] = take(f"{theirs}.{kind}")
    # Counters of training steps, and the refinement of a SharpMask.
    ignored = ("refs.", "neths.", "netvs.")
    unknown = [key for key in state if key not in used and not key.endswith("num_batches_tracked")]
    unknown = [key for key in unknown if not key.startswith(ignored)]
    if unknown:
        raise ModelError(f"has '{unknown[0]}' and {len(unknown) - 1} more parameters that are not understood")
    return converted


def _spec(converted: Mapping[str, Tensor], name: str) -> ModelSpec:
    encode, reduce = converted["encoder.encode.weight"], converted["encoder.reduce.weight"]
    cells = encode[0].numel() / max(len(reduce), 1)
    grid, side = round(cells**0.5), round(len(converted["mask_head.linear.weight"]) ** 0.5)
    width = len(converted["trunk.conv1.weight"])
    mask_pixels = len(converted["mask_head.linear.weight"])
    if grid * grid != cells or side * side != mask_pixels:
        raise ModelError(f"an encoding of {cells:g} cells and a mask of {mask_pixels} pixels: both must be squares")
    if converted["trunk.layer3.5.conv3.weight"].shape != (16 * width, 4 * width, 1, 1):
        raise ModelError(f"the trunk is no ResNet-50 of width {width}")
    return dataclasses.replace(
        ModelSpec(name=name),
        trunk_width=width,
        patch_size=16 * grid,
        features=len(reduce),
        encoding=len(encode),
        mask_side=side,
        score_hidden=len(converted["score_head.hidden.weight"]),
    )
