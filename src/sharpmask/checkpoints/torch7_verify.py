"""A second opinion on an imported model: run the Torch7 modules one by one as they stand in the file and compare.

Nothing of our networks is used here but their outputs: every module does what its class does in Torch7, with padding,
crops and affine layers as separate steps. An error in the mapping of names, sizes, padding or folding shows as a
difference.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from sharpmask.checkpoints.torch7 import read_torch7
from sharpmask.checkpoints.torch7_values import LuaTable, Storage, Tensor, TorchObject
from sharpmask.errors import ModelError
from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.sharpmask import SharpMask

TOLERANCE = 1e-4  # largest difference relative to the largest value


def verify_import(
    source: str | Path | bytes, network: DeepMask | SharpMask, *, patches: int = 2, seed: int = 0
) -> dict[str, float]:
    """Compare a network with the Torch7 file it was imported from, on random patches with their context.

    Returns:
        Largest difference, relative to the largest value, of "encoding", "mask", "score" and, for a SharpMask,
        "refined mask".

    Raises:
        ModelError: one of them is above 1e-4, or the file cannot be read or run.
    """
    root = read_torch7(source)
    model = root["model"] if isinstance(root, LuaTable) else root
    try:
        with torch.inference_mode():
            errors = _compare(model, network, patches, seed)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"the modules in the file cannot be run for verification: {error}") from None
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] <= TOLERANCE:
        raise ModelError(
            f"the imported network differs from the modules in the file: {worst} by {errors[worst]:.2g} of its range"
        )
    return errors


def _compare(model: TorchObject, network: DeepMask | SharpMask, patches: int, seed: int) -> dict[str, float]:
    spec = network.spec
    deepmask = network.deepmask if isinstance(network, SharpMask) else network
    side = spec.patch_size + 2 * spec.context
    images = torch.rand(patches, 3, side, side, generator=torch.Generator().manual_seed(seed))
    trunk_outputs: list[torch.Tensor] = []
    encoding = _run(model.get("trunk"), (images - deepmask.mean) / deepmask.std, trunk_outputs)
    mask_branch = model.get("maskBranchDM" if isinstance(network, SharpMask) else "maskBranch")
    expected = {
        "encoding": encoding,
        "mask": _run(_first_linear(mask_branch), encoding),
        "score": _run(model.get("scoreBranch"), encoding),
    }
    own_encoding = deepmask.encode_patches(deepmask.features(images))
    found = {
        "encoding": own_encoding,
        "mask": deepmask.mask_head(own_encoding),
        "score": deepmask.score_head(own_encoding),
    }
    if isinstance(network, SharpMask):
        crop_first, network.crop_first = network.crop_first, True
        try:
            found["refined mask"] = network(images).mask_logits
        finally:
            network.crop_first = crop_first
        expected["refined mask"] = _refine(model, encoding, trunk_outputs)
    return {name: _difference(found[name], expected[name]) for name in found}


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    expected = expected.reshape(found.shape)
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def _refine(model: TorchObject, encoding: torch.Tensor, trunk_outputs: list[torch.Tensor]) -> torch.Tensor:
    """The refinement modules in turn; skip features come from the trunk modules that `skpos` names."""
    refs, positions = model.get("refs"), model.get("skpos")
    mask = _run(refs[0], encoding)
    for stage in range(1, len(refs)):
        mask = _run(refs[stage], (trunk_outputs[int(positions[stage]) - 1], mask))
    return mask


def _first_linear(module: Any) -> TorchObject:
    """The mask branch without the enlargement at its end."""
    while module.class_name == "nn.Sequential":
        module = module.get("modules")[1]
    return module


def _run(module: TorchObject, x: Any, outputs: list[torch.Tensor] | None = None) -> Any:
    """One module's output. `outputs` collects those of a Sequential's own modules."""
    kind = module.class_name.rpartition(".")[2]
    if kind == "Sequential":
        for child in module.get("modules").sequence():
            x = _run(child, x)
            if outputs is not None:
                outputs.append(x)
        return x
    if kind == "ConcatTable":
        return tuple(_run(child, x) for child in module.get("modules").sequence())
    if kind == "ParallelTable":
        return tuple(_run(child, part) for child, part in zip(module.get("modules").sequence(), x, strict=True))
    if kind == "CAddTable":
        return sum(x[1:], start=x[0])
    if kind in ("Identity", "Copy", "Dropout"):
        return x
    if kind in ("View", "Reshape"):
        return _view(module, x)
    if kind == "Linear":
        return F.linear(x, _values(module, "weight"), _values(module, "bias"))
    if kind == "Threshold":
        return F.threshold(x, module.get("threshold"), module.get("val"))
    if kind == "ReLU":
        return F.relu(x)
    return _spatial(kind, module, x)


def _spatial(kind: str, module: TorchObject, x: torch.Tensor) -> torch.Tensor:
    number = {key: int(value) for key, value in module.fields.items.items() if isinstance(value, float)}
    if kind.startswith("SpatialConvolution"):
        shape = tuple(number[key] for key in ("nOutputPlane", "nInputPlane", "kH", "kW"))
        weight, bias = _values(module, "weight"), module.get("bias")
        has_bias = isinstance(bias, Tensor) and bias.numel > 0
        return F.conv2d(
            x, weight.reshape(shape), _values(module, "bias") if has_bias else None, (number["dH"], number["dW"]),
            (number.get("padH", 0), number.get("padW", 0)),
        )  # fmt: skip
    if kind in ("SpatialConstDiagonal", "ConstAffine"):
        return x * _values(module, "a").reshape(-1, 1, 1) + _values(module, "b").reshape(-1, 1, 1)
    if kind.endswith("BatchNormalization"):
        names = ("running_mean", "running_var", "weight", "bias")
        mean, variance, gamma, beta = (
            _values(module, name) if module.get(name) is not None else None for name in names
        )
        if variance is None:
            return F.batch_norm(x, mean, _values(module, "running_std") ** -2, gamma, beta, eps=0.0)
        return F.batch_norm(x, mean, variance, gamma, beta, eps=float(module.get("eps", 1e-5)))
    if kind == "SpatialMaxPooling":
        return F.max_pool2d(
            x, (number["kH"], number["kW"]), (number["dH"], number["dW"]), (number["padH"], number["padW"])
        )
    sides = [number.get(f"pad_{side}", 0) for side in "lrtb"]
    if kind == "SpatialZeroPadding":
        return F.pad(x, sides)
    if kind == "SpatialReplicationPadding":
        return F.pad(x, sides, mode="replicate")
    if kind == "SpatialSymmetricPadding":
        rows, cols = (
            np.pad(np.arange(n), pad, mode="symmetric")
            for n, pad in zip(x.shape[2:], (sides[2:], sides[:2]), strict=True)
        )
        return x[:, :, torch.from_numpy(rows)][:, :, :, torch.from_numpy(cols)]
    if kind == "SpatialUpSamplingNearest":
        factor = number["scale_factor"]
        return x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    raise ModelError(f"no verification of class {module.class_name}")


def _view(module: TorchObject, x: torch.Tensor) -> torch.Tensor:
    """Maps to one row each; a row to the maps whose sizes, the last three of `size`, the module states."""
    if x.ndim > 2:
        return x.flatten(1)
    size = module.get("size")
    if not isinstance(size, Storage) or len(size.data) < 3:
        return x
    sides = [int(extent) for extent in size.data[-3:]]
    return x.reshape(len(x), *sides)


def _values(module: TorchObject, name: str) -> torch.Tensor:
    return torch.from_numpy(np.array(module.get(name).array(), np.float32))
