"""Model files: safetensors that carry their own spec, so that a file is enough to rebuild the network."""

import dataclasses
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sharpmask.checkpoints.published import PUBLISHED, published_path
from sharpmask.errors import ConfigError, ModelError, SharpMaskError
from sharpmask.files import atomic_write
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask, build_network
from sharpmask.networks.specs import SPECS, ModelSpec
from sharpmask.networks.trunk import convert_batchnorm

FORMAT = "sharpmask-1"
DEFAULT_MODEL = "sharpmask-lite0"


def save_network(
    network: DeepMask | SharpMask,
    path: str | Path,
    *,
    notes: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a network's weights and spec to a safetensors file.

    Args:
        network: what to save.
        path: file to write, atomically.
        notes: further text for the file's header (data, recipe, licence).
        dtype: of weights with two or more dimensions; biases and folded affines stay in fp32.
    """
    metadata = {"format": FORMAT, "spec": json.dumps(dataclasses.asdict(network.spec)), **(notes or {})}
    if isinstance(network, SharpMask) and network.crop_first:
        metadata["crop_first"] = "true"
    write_safetensors(network.state_dict(), path, metadata=metadata, dtype=dtype)


def write_safetensors(
    tensors: Mapping[str, Tensor], path: str | Path, *, metadata: Mapping[str, str], dtype: torch.dtype
) -> None:
    """Write tensors and header text, atomically; those with two or more dimensions as `dtype`, all else in fp32.

    Raises:
        SharpMaskError: the file cannot be written.
    """
    stored = {
        name: tensor.detach().to("cpu", dtype if tensor.ndim > 1 else torch.float32).contiguous()
        for name, tensor in tensors.items()
    }
    with atomic_write(path) as temporary:
        try:
            save_file(stored, temporary, metadata=dict(metadata))
        except SafetensorError as error:  # it hides what the system said
            raise SharpMaskError(f"cannot write {path}: {error}") from error


def load_network(name_or_path: str | Path = DEFAULT_MODEL) -> DeepMask | SharpMask:
    """A network in evaluation mode, fp32, on the CPU, from a bundled model's name or a file written by `save_network`.

    Raises:
        ConfigError: no such name, or a name without bundled weights.
        ModelError: the file is missing, damaged or not one of ours.
    """
    name = str(name_or_path)
    if name in SPECS:
        spec = SPECS[name]
        if name in PUBLISHED:
            path = published_path(name)
            if path is None:
                raise ConfigError(f"'{name}' has not been fetched yet: run  sharpmask load {name}")
            return _load_file(path, None)
        if spec.weights is None:
            bundled = ", ".join(s.name for s in SPECS.values() if s.weights)
            raise ConfigError(f"no weights are bundled for '{name}'; there are weights for: {bundled}")
        with resources.as_file(resources.files("sharpmask") / "weights" / spec.weights) as path:
            return _load_file(path, spec)
    if not name.endswith(".safetensors"):
        bundled = ", ".join(s.name for s in SPECS.values() if s.weights)
        raise ConfigError(f"'{name}' is neither a bundled model ({bundled}) nor a .safetensors file")
    return _load_file(Path(name), None)


def _load_file(path: Path, spec: ModelSpec | None) -> DeepMask | SharpMask:
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} was not written by sharpmask: its header has no format '{FORMAT}'")
    try:
        stored = ModelSpec(**json.loads(metadata["spec"]))
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ModelError(
            f"{path} describes a model this version does not know ({error}); use the version it was made with"
        ) from None
    network = build_network(spec or stored)
    if isinstance(network, SharpMask):
        network.crop_first = metadata.get("crop_first") == "true"
    elif stored.refinement is not None:
        # A SharpMask file holds the DeepMask that it refines.
        tensors = {k.removeprefix("deepmask."): v for k, v in tensors.items() if k.startswith("deepmask.")}
    load_state(network, tensors, path)
    network.int8 = metadata.get("int8")
    return network.eval()


def load_state(network: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Load tensors of any precision into a network; ModelError names what is missing, left over or of another shape."""
    expected = network.state_dict()
    wrong = [f"{k} is missing" for k in expected if k not in tensors]
    wrong += [f"{k} is not known" for k in tensors if k not in expected]
    wrong += [
        f"{k} has shape {tuple(tensors[k].shape)} instead of {tuple(v.shape)}"
        for k, v in expected.items()
        if k in tensors and tensors[k].shape != v.shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelError(f"{path} does not fit the model: {'; '.join(wrong[:3])}{more}")
    network.load_state_dict({k: v.float() for k, v in tensors.items()})


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header text of a safetensors file; ModelError when it is missing or damaged."""
    if not Path(path).is_file():
        raise ModelError(f"no weights file {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = dict(file.metadata() or {})
        return load_file(str(path)), metadata
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {error}") from None


def load_trunk(network: DeepMask | SharpMask, source: str | Path) -> None:
    """Fill a network's trunk from an ImageNet file with torchvision's (ResNet, VGG) or timm's (EfficientNet) names, or
    from the trunk of a trained model, given by its name or file. Later stages than the network has are left out.

    Raises:
        ModelError: the file is missing or damaged, or holds another trunk.
    """
    trunk, spec = network.deepmask.trunk, network.spec
    tensors, metadata = ({}, {"format": FORMAT}) if str(source) in SPECS else read_safetensors(source)
    if metadata.get("format") == FORMAT:
        trained = load_network(source)
        kinds = [f"{s.trunk} with the stride on the {s.stride_on}" for s in (trained.spec, spec)]
        if kinds[0] != kinds[1]:
            raise ModelError(f"{source} has another trunk: {kinds[0]} convolutions instead of {kinds[1]}")
        converted = {k: v for k, v in trained.deepmask.trunk.state_dict().items() if k in trunk.state_dict()}
    else:
        try:
            converted = convert_batchnorm(tensors, trunk)
        except KeyError as error:
            raise ModelError(f"{source} is not an ImageNet file of trunk '{spec.trunk}': it has no {error}") from None
    load_state(trunk, converted, source)
