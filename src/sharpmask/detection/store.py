"""Detector files: safetensors that carry architecture and classes.

A detector whose trunk is that of a bundled proposal model, frozen while it was trained, names the model in place of the
trunk's weights.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import torch
from torch import nn

from sharpmask.checkpoints.store import load_network, load_state, read_safetensors, write_safetensors
from sharpmask.detection.classes import DetectorClass
from sharpmask.detection.networks import C5Head, FastRCNN, MultiPathNet, RegionHead, TrunkNetwork, build_detector
from sharpmask.detection.specs import DetectorSpec
from sharpmask.errors import ConfigError, ModelError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.trunk import convert_batchnorm

FORMAT = "sharpmask-detector-1"
# Names of bundled detectors and their files in the package's `weights` folder.
BUNDLED = {"detector-lite2": "detector-lite2.safetensors"}
DEFAULT_DETECTOR = "detector-lite2"


def save_detector(
    network: FastRCNN | MultiPathNet,
    classes: Sequence[DetectorClass],
    path: str | Path,
    *,
    trunk_of: str | None = None,
    notes: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write a detector's weights, architecture and classes, atomically.

    Args:
        trunk_of: name of the bundled model that has the same trunk, which is left out then.
        notes: further text for the file's header.
        dtype: of weights with two or more dimensions; all else stays in fp32.
    """
    tensors = network.state_dict()
    metadata = {
        "format": FORMAT,
        "spec": json.dumps(dataclasses.asdict(network.spec)),
        "classes": json.dumps([dataclasses.asdict(entry) for entry in classes]),
        **(notes or {}),
    }
    if trunk_of is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("trunk.")}
        metadata |= {"trunk_of": trunk_of, "trunk_digest": _digest(network.trunk)}
    write_safetensors(tensors, path, metadata=metadata, dtype=dtype)


def load_detector(name_or_path: str | Path) -> tuple[FastRCNN | MultiPathNet, list[DetectorClass]]:
    """A detector in evaluation mode, fp32, on the CPU, and its classes, from a bundled one's name or a file.

    Raises:
        ConfigError: there is no such bundled detector.
        ModelError: the file is missing, damaged or no detector.
    """
    name = str(name_or_path)
    if name in BUNDLED:
        with resources.as_file(resources.files("sharpmask") / "weights" / BUNDLED[name]) as path:
            return _load_file(path)
    if not Path(name).suffix and not Path(name).exists():
        raise ConfigError(f"'{name}' is neither a bundled detector ({', '.join(BUNDLED)}) nor a file")
    return _load_file(Path(name))


def _load_file(path: Path) -> tuple[FastRCNN | MultiPathNet, list[DetectorClass]]:
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} is no detector: its header has no format '{FORMAT}'; make one with train-detector")
    try:
        values = json.loads(metadata["spec"])
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        spec = DetectorSpec(**values)
        classes = [DetectorClass(**entry) for entry in json.loads(metadata["classes"])]
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise ModelError(
            f"{path} describes a detector this version does not know ({error}); use the version it was made with"
        ) from None
    network = build_detector(spec, len(classes))
    if "trunk_of" in metadata:
        trunk = load_network(metadata["trunk_of"]).deepmask.trunk
        if metadata.get("trunk_digest", _digest(trunk)) != _digest(trunk):
            raise ModelError(
                f"{path} was trained on the trunk of another '{metadata['trunk_of']}' than this version has; use the "
                "version it was made with, or train it again"
            )
        tensors = {**tensors, **{f"trunk.{name}": tensor for name, tensor in trunk.state_dict().items()}}
    load_state(network, tensors, path)
    return network.eval(), classes


def _digest(trunk: nn.Module) -> str:
    """SHA-256 of a trunk's weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(trunk.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return found.hexdigest()


def load_detector_trunk(network: TrunkNetwork, source: str) -> None:
    """Fill a detector's trunk, and what its heads have of the classifier, from an ImageNet file; or the trunk alone
    from a proposal model or detector, given by its name or file.

    Raises:
        ConfigError: there is no such model.
        ModelError: the file is missing or damaged, holds another trunk, or lacks the stages that the heads are made of.
    """
    trunk, spec = network.trunk, network.spec
    tensors, metadata = read_safetensors(source) if Path(source).is_file() else ({}, {"format": "sharpmask-"})
    if not metadata.get("format", "").startswith("sharpmask-"):
        for module in (trunk, *_c5_stages(network)):
            try:
                load_state(module, convert_batchnorm(tensors, module), source)
            except KeyError as error:
                part = f"trunk '{spec.trunk}'" if module is trunk else f"all of '{spec.trunk}'"
                raise ModelError(f"{source} is not an ImageNet file of {part}: no {error}") from None
        _load_fully_connected(network, tensors)
        return
    if _c5_stages(network):
        raise ModelError(f"{source} has no stages after the trunk, which '{spec.name}' needs; give it an ImageNet file")
    trained: TrunkNetwork | DeepMask
    if source in BUNDLED or metadata["format"] == FORMAT:
        trained = load_detector(source)[0]
    else:
        trained = load_network(source).deepmask
    kinds = (trained.spec.trunk, trained.spec.stride_on)
    if kinds != (spec.trunk, spec.stride_on):
        raise ModelError(
            f"{source} has another trunk than '{spec.name}': {kinds[0]} with the stride on the {kinds[1]} convolutions"
        )
    load_state(trunk, trained.trunk.state_dict(), source)


def _load_fully_connected(network: TrunkNetwork, tensors: Mapping[str, torch.Tensor]) -> None:
    """Fill the heads of a VGG-16 from the classifier's first two layers, as Fast R-CNN does, where they are of the same
    size; files may lack them."""
    if network.spec.trunk != "vgg_16":
        return
    for head in (module for module in network.modules() if isinstance(module, RegionHead)):
        for layer, name in ((head.fc6, "classifier.0"), (head.fc7, "classifier.3")):
            weight, bias = (tensors.get(f"{name}.{part}") for part in ("weight", "bias"))
            if weight is not None and bias is not None and weight.shape == layer.weight.shape:
                with torch.no_grad():
                    layer.weight.copy_(weight)
                    layer.bias.copy_(bias)


def _c5_stages(network: TrunkNetwork) -> list[nn.Module]:
    """The classifier's stages in the heads of a network."""
    return [module.c5 for module in network.modules() if isinstance(module, C5Head)]
