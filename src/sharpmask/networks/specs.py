"""Every model of the package: one table from name to architecture, weights file and licence."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from sharpmask.errors import ConfigError

Trunk = Literal["resnet50", "vgg_a", "vgg_16", "efficientnet_lite0", "efficientnet_lite2"]


@dataclass(frozen=True)
class ModelSpec:
    """An architecture, complete enough to build the network and to describe a weights file.

    The defaults are SharpMask's published choice, W160-P4-D39-F128 with head C (SharpMask paper, section 4).

    Attributes:
        name: the name users give to `sharpmask.load` and `--model`.
        trunk: backbone that yields features at strides 2, 4, 8 and 16.
        trunk_width: scales the trunk's channels; 64 is the published size (the ResNet's first convolution has 64).
        levels: the paper's P, how often the trunk halves the resolution: 4 for stride 16; 3 cuts the trunk after its
            features of stride 8.
        stride_on: which convolution of a ResNet bottleneck carries its stride, "1x1" (Caffe) or "3x3" (torchvision,
            Torch release).
        patch_size: the paper's W, side P of the window a mask covers, in pixels; a multiple of the stride.
        context: pixels of real image on each side that a training patch has in addition, so that convolutions see no
            border; a multiple of the stride.
        features: channels F after the 1x1 convolution that follows the trunk; None: no such convolution.
        head: what mask and score share, see heads.py: "original" (DeepMask paper), "A", "B" or "C".
        encoding: length E of the description of a window that masks are made from, and of the score's own in the heads
            where it has one.
        mask_side: side of DeepMask's mask output.
        score_hidden: hidden units of the score branch.
        refinement: None for DeepMask, else SharpMask's refinement: "refactored" or the equal but slower "plain"; or
            "multiscale", the baseline of independent predictions in its place.
        refinement_stages: number of refinement modules, from the coarsest features on; None: one for each level of the
            trunk. With one less the mask has half the window's side, and the finest, dearest module is saved.
        refinement_width: channels k of the coarsest refinement stage.
        schedule: k at the following stages: "halved" at each (at least 1), or "constant".
        horizontal: whether refinement modules see the trunk's features; without, they are a deconvolution network.
        vertical: whether refinement modules have 3x3 convolutions on the mask encoding; without, a 1x1 one brings it to
            the next width and the modules are a plain skip network.
        horizontal_width: channels of the horizontal nets' first convolution (half of it at the finest stage).
        upsampling: how a refinement module doubles the resolution: "nearest" (Torch release) or "bilinear" (paper).
        weights: file in the package's `weights` folder, None for an architecture without bundled weights.
        licence: licence of those weights.

    Raises:
        ConfigError: a window or context that is no whole number of feature cells, or another number of levels.
    """

    name: str
    trunk: Trunk = "resnet50"
    trunk_width: int = 64
    levels: int = 4
    stride_on: Literal["1x1", "3x3"] = "3x3"
    patch_size: int = 160
    context: int = 16
    features: int | None = 128
    head: Literal["original", "A", "B", "C"] = "C"
    encoding: int = 512
    mask_side: int = 56
    score_hidden: int = 1024
    refinement: Literal["refactored", "plain", "multiscale"] | None = None
    refinement_stages: int | None = None
    refinement_width: int = 32
    schedule: Literal["halved", "constant"] = "halved"
    horizontal: bool = True
    vertical: bool = True
    horizontal_width: int = 64
    upsampling: Literal["nearest", "bilinear"] = "nearest"
    weights: str | None = None
    licence: str | None = None

    def __post_init__(self) -> None:
        if self.levels not in (3, 4):
            raise ConfigError(f"model '{self.name}': levels must be 3 or 4, not {self.levels}")
        for field, size in (("patch_size", self.patch_size), ("context", self.context)):
            if size % self.stride:
                raise ConfigError(f"model '{self.name}': {field} {size} is no multiple of the stride {self.stride}")
        if self.refinement_stages is not None and not 1 <= self.refinement_stages <= self.levels:
            raise ConfigError(
                f"model '{self.name}': refinement_stages must be 1 to {self.levels}, not {self.refinement_stages}"
            )

    @property
    def stride(self) -> int:
        """Pixels between neighbouring windows of the dense output (16 for 4 levels)."""
        return 2**self.levels

    @property
    def grid_side(self) -> int:
        """Feature cells along one side of a window (10 for P = 160)."""
        return self.patch_size // self.stride


SPECS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(name="deepmask-resnet50"),
        ModelSpec(name="sharpmask-resnet50", refinement="refactored"),
        # The authors' trained models of 2016, imported from Torch7 (see checkpoints/published.py).
        ModelSpec(name="deepmask-fair", licence="BSD"),
        ModelSpec(name="sharpmask-fair", refinement="refactored", licence="BSD"),
        ModelSpec(
            name="deepmask-lite0",
            trunk="efficientnet_lite0",
            features=64,
            horizontal_width=32,
            weights="sharpmask-lite0.safetensors",  # the DeepMask inside that SharpMask
            licence="Apache-2.0",
        ),
        ModelSpec(
            name="sharpmask-lite0",
            trunk="efficientnet_lite0",
            features=64,
            refinement="refactored",
            horizontal_width=32,
            upsampling="bilinear",
            weights="sharpmask-lite0.safetensors",
            licence="Apache-2.0",
        ),
        # For CPUs in a hurry. Windows of 112 need half the pixels of 160 for the same objects; a shorter encoding makes
        # the layer over the window, and one module less the refinement, a fraction of what they cost otherwise.
        ModelSpec(
            name="sharpmask-fast",
            trunk="efficientnet_lite0",
            patch_size=112,
            features=48,
            encoding=192,
            mask_side=28,
            score_hidden=256,
            refinement="refactored",
            refinement_stages=3,
            horizontal_width=16,
            upsampling="bilinear",
            weights="sharpmask-fast.safetensors",
            licence="Apache-2.0",
        ),
        ModelSpec(name="deepmask-lite2", trunk="efficientnet_lite2", features=64, horizontal_width=32),
        ModelSpec(
            name="sharpmask-lite2",
            trunk="efficientnet_lite2",
            features=64,
            refinement="refactored",
            horizontal_width=32,
            upsampling="bilinear",
        ),
    )
}


def _add(name: str, base: str, **changes: Any) -> None:
    """A further row: another one with some fields changed, without its weights."""
    SPECS[name] = replace(SPECS[base], name=name, weights=None, licence=None, **changes)


# The trunks that the SharpMask paper compares (table 1), in its notation; W160-P4-D39-F128 is resnet50. The original
# DeepMask is its own paper's whole network.
_TRUNKS: dict[str, dict[str, Any]] = {
    "vgg": {"trunk": "vgg_a", "patch_size": 224, "features": None, "head": "original"},
    "w160-p4-d8-vgg": {"trunk": "vgg_a", "features": None},
    "w160-p4-d39": {"features": None},
    "w112-p4-d39": {"patch_size": 112, "features": None},
    "w112-p3-d21": {"patch_size": 112, "levels": 3, "features": None},
    "w112-p3-d21-f128": {"patch_size": 112, "levels": 3},
}
for _trunk, _changes in _TRUNKS.items():
    _add(f"deepmask-{_trunk}", "deepmask-resnet50", **_changes)
    _add(f"sharpmask-{_trunk}", "sharpmask-resnet50", **_changes)

# The other studies, on the paper's trunk and on the light one: heads, refinement and its capacity, the baseline.
for _base in ("resnet50", "lite0"):
    for _head in ("original", "A", "B"):
        _add(f"deepmask-{_base}-head-{_head.lower()}", f"deepmask-{_base}", head=_head)
    for _k in (4, 8, 16, 32, 64):
        if _k != SPECS[f"sharpmask-{_base}"].refinement_width:
            _add(f"sharpmask-{_base}-k{_k}", f"sharpmask-{_base}", refinement_width=_k)
        _add(f"sharpmask-{_base}-k{_k}-constant", f"sharpmask-{_base}", refinement_width=_k, schedule="constant")
    _add(f"sharpmask-{_base}-plain", f"sharpmask-{_base}", refinement="plain")
    _add(f"sharpmask-{_base}-no-vertical", f"sharpmask-{_base}", vertical=False)
    _add(f"sharpmask-{_base}-no-horizontal", f"sharpmask-{_base}", horizontal=False)
    _add(f"multiscale-{_base}", f"sharpmask-{_base}", refinement="multiscale")

# Every ResNet row again for the MSRA / Keras ImageNet weights, which have the stride on the 1x1 convolution.
for _spec in list(SPECS.values()):
    if _spec.trunk == "resnet50" and not _spec.name.endswith("-fair"):
        _add(f"{_spec.name}-caffe", _spec.name, stride_on="1x1")

# The SharpMask paper's own names for its two models.
_add("deepmask", "deepmask-resnet50")
_add("sharpmask", "sharpmask-resnet50")


def get_spec(name: str) -> ModelSpec:
    """The spec of that name; ConfigError with the known names otherwise."""
    try:
        return SPECS[name]
    except KeyError:
        known = ", ".join(name for name in SPECS if not name.endswith("-caffe"))
        raise ConfigError(f"no model named '{name}'; there are: {known}, and ResNet-50's with -caffe added") from None
