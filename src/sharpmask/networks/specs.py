"""Every model of the package: one table from name to architecture, weights file and licence."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from sharpmask.errors import ConfigError

Trunk = Literal["resnet50", "efficientnet_lite0", "efficientnet_lite2"]


@dataclass(frozen=True)
class ModelSpec:
    """An architecture, complete enough to build the network and to describe a weights file.

    The defaults are SharpMask's published choice, W160-P4-D39-F128 with head C (SharpMask paper, section 4).

    Attributes:
        name: the name users give to `sharpmask.load` and `--model`.
        trunk: backbone that yields features at strides 2, 4, 8 and 16.
        trunk_width: channels of the ResNet's first convolution; 64 is ResNet-50, other layers scale with it.
        stride_on: which convolution of a ResNet bottleneck carries its stride, "1x1" (Caffe) or "3x3" (torchvision,
            Torch release).
        patch_size: side P of the window a mask covers, in pixels.
        context: pixels of real image on each side that a training patch has in addition, so that convolutions see no
            border.
        features: channels F after the 1x1 convolution that follows the trunk.
        encoding: length E of the shared description of a window, the output of the P/16 x P/16 layer.
        mask_side: side of DeepMask's mask output.
        score_hidden: hidden units of the score branch.
        refinement: None for DeepMask, else SharpMask's refinement: "refactored" or the equal but slower "plain".
        refinement_width: channels k of the coarsest refinement stage, halved at every following one.
        horizontal_width: channels of the horizontal nets' first convolution (half of it at the finest stage).
        upsampling: how a refinement module doubles the resolution: "nearest" (Torch release) or "bilinear" (paper).
        weights: file in the package's `weights` folder, None for an architecture without bundled weights.
        licence: licence of those weights.
    """

    name: str
    trunk: Trunk = "resnet50"
    trunk_width: int = 64
    stride_on: Literal["1x1", "3x3"] = "3x3"
    patch_size: int = 160
    context: int = 16
    features: int = 128
    encoding: int = 512
    mask_side: int = 56
    score_hidden: int = 1024
    refinement: Literal["refactored", "plain"] | None = None
    refinement_width: int = 32
    horizontal_width: int = 64
    upsampling: Literal["nearest", "bilinear"] = "nearest"
    weights: str | None = None
    licence: str | None = None

    @property
    def stride(self) -> int:
        """Pixels between neighbouring windows of the dense output."""
        return 16

    @property
    def forward_path(self) -> "ModelSpec":
        """The architecture without name, weights and refinement: equal for a SharpMask and the DeepMask inside it."""
        return dataclasses.replace(self, name="", refinement=None, weights=None, licence=None)

    @property
    def grid_side(self) -> int:
        """Feature cells along one side of a window (10 for P = 160)."""
        return self.patch_size // self.stride


SPECS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(name="deepmask-resnet50"),
        ModelSpec(name="sharpmask-resnet50", refinement="refactored"),
        # The authors' trained models of 2016, imported from Torch7 (see checkpoints/download.py).
        ModelSpec(name="deepmask-fair", licence="BSD"),
        ModelSpec(name="sharpmask-fair", refinement="refactored", licence="BSD"),
        # The MSRA / Keras ImageNet weights of ResNet-50 have the stride on the 1x1 convolution.
        ModelSpec(name="deepmask-resnet50-caffe", stride_on="1x1"),
        ModelSpec(name="sharpmask-resnet50-caffe", stride_on="1x1", refinement="refactored"),
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


def get_spec(name: str) -> ModelSpec:
    """The spec of that name; ConfigError with the known names otherwise."""
    try:
        return SPECS[name]
    except KeyError:
        raise ConfigError(f"no model named '{name}'; there are: {', '.join(SPECS)}") from None
