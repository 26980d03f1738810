"""Networks made quicker without another result: constants folded into weights, padding where it is cheap.

All of it is exact but for rounding:

- the frozen affine of a convolution is multiplied into its weights once, not in every call;
- the normalisation of the image goes into the first convolution, which pads symmetrically: padding commutes with it;
- a depthwise convolution whose input is made by a 1x1 convolution finds its padding done before that one, on a sixth of
  the channels: mirroring commutes with whatever works on each pixel by itself.
"""

import copy
import dataclasses
from typing import TypeVar

from torch import Tensor, nn

from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.heads import WindowLinear
from sharpmask.networks.layers import FrozenAffineConv2d, PaddedConv2d
from sharpmask.networks.sharpmask import SharpMask
from sharpmask.networks.trunk import InvertedResidual

Conv = TypeVar("Conv", bound=nn.Conv2d)


def fold(network: DeepMask | SharpMask) -> DeepMask | SharpMask:
    """A copy on the CPU, in fp32, to be used from the trunk on: it takes images in [0, 1] without `DeepMask.features`.

    The plain form of refinement becomes the refactored one, which has the same weights and gives the same numbers.
    """
    folded = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
    if folded.spec.refinement == "plain":
        folded.spec = dataclasses.replace(folded.spec, refinement="refactored")
    for parent in list(folded.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FrozenAffineConv2d):
                setattr(parent, name, _without_affine(child))
            elif isinstance(child, WindowLinear) and child.step == 1:
                setattr(parent, name, _as_convolution(child))
    for block in folded.modules():
        if isinstance(block, InvertedResidual):
            block.conv_pw.pad, block.conv_dw.pad = block.conv_dw.pad, (0, 0, 0, 0)
    _normalise(folded.deepmask)
    return folded


def _without_affine(conv: FrozenAffineConv2d) -> PaddedConv2d:
    return _replaced(conv, conv.weight * conv.scale[:, None, None, None], conv.shift)


def _as_convolution(layer: WindowLinear) -> nn.Conv2d:
    """The layer over a window, with its weights in the shape and memory layout that a map of windows needs."""
    weight = layer.weight.view(layer.out_features, -1, layer.side, layer.side)
    return filled(nn.Conv2d(1, 1, layer.side, dilation=layer.step), weight, layer.bias)


def _replaced(conv: PaddedConv2d, weight: Tensor, bias: Tensor) -> PaddedConv2d:
    """The same convolution with other weights and a bias."""
    new = filled(PaddedConv2d(1, 1, conv.kernel_size[0], stride=conv.stride[0]), weight, bias, groups=conv.groups)
    new.pad = conv.pad
    return new


def filled(conv: Conv, weight: Tensor, bias: Tensor, *, groups: int = 1) -> Conv:
    """A convolution that was made with one channel, which spares the random start of many, with its true weights."""
    conv.out_channels, conv.in_channels, conv.groups = weight.shape[0], weight.shape[1] * groups, groups
    conv.weight = nn.Parameter(weight.detach().contiguous().clone(), requires_grad=False)
    conv.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return conv.eval()


def _normalise(deepmask: DeepMask) -> None:
    """Let the trunk's first convolution take images as they are."""
    parent, name, conv = next(
        (module, name, child)
        for module in deepmask.trunk.modules()
        for name, child in module.named_children()
        if isinstance(child, PaddedConv2d)
    )
    mean, std = (getattr(deepmask, key).double().flatten() for key in ("mean", "std"))
    weight = conv.weight.double() / std[None, :, None, None]
    bias = -(weight * mean[None, :, None, None]).sum(dim=(1, 2, 3))
    bias = bias if conv.bias is None else bias + conv.bias.double()
    setattr(parent, name, _replaced(conv, weight.float(), bias.float()))
