"""The two parts of a network that PyTorch itself translates to ONNX: the dense run, and masks of chosen windows.

Shape letters: N windows, E encoding length, C_i channels of a skip, P patch side, M mask side, h w grid of windows,
m side of a crop.
"""

import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpmask.networks.deepmask import DeepMask
from sharpmask.networks.heads import WindowLinear
from sharpmask.networks.layers import FrozenAffineConv2d, PaddedConv2d
from sharpmask.networks.sharpmask import SharpMask


def prepared(network: DeepMask | SharpMask) -> DeepMask | SharpMask:
    """A copy on the CPU that gives the same numbers, of layers that do not ask for the image's size.

    The dense run is translated at one size, and nothing in it may depend on that (see `trace`). Affines are folded into
    the weights, which the graph would hold once a scale otherwise, and a plain refinement works in the refactored form,
    which has the same weights.
    """
    changed = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    if changed.spec.refinement == "plain":
        changed.spec = dataclasses.replace(changed.spec, refinement="refactored")
    for parent in list(changed.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, PaddedConv2d):
                setattr(parent, name, _MirrorConv(child))
    encoder = changed.deepmask.encoder
    encoder.encode = cast(WindowLinear, _window_conv(encoder.encode))
    return changed


class _MirrorConv(nn.Module):
    """`PaddedConv2d`, or with its affine folded `FrozenAffineConv2d`."""

    def __init__(self, conv: PaddedConv2d) -> None:
        super().__init__()
        scale = conv.scale[:, None, None, None] if isinstance(conv, FrozenAffineConv2d) else 1
        bias = conv.shift if isinstance(conv, FrozenAffineConv2d) else conv.bias
        self.weight = nn.Parameter((conv.weight * scale).detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.pad, self.stride, self.groups = conv.pad, conv.stride, conv.groups

    def forward(self, x: Tensor) -> Tensor:
        left, right, top, bottom = self.pad
        if max(self.pad) == 1:
            x = F.pad(x, self.pad, mode="replicate")
        elif max(self.pad) > 1:
            x = _mirror(_mirror(x, 3, left, right), 2, top, bottom)
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def _mirror(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Mirrored strips of one line each, counted from the near end: see `layers.symmetric_pad`."""
    end = torch.iinfo(torch.int64).max
    parts = [torch.ops.aten.slice(x, dim, i, i + 1) for i in reversed(range(before))]
    parts += [x, torch.ops.aten.slice(x, dim, -1, end)] if after else [x]
    parts += [torch.ops.aten.slice(x, dim, -i, 1 - i) for i in range(2, after + 1)]
    return torch.cat(parts, dim)


def _window_conv(linear: WindowLinear) -> nn.Conv2d:
    """The same layer for maps of more than one window."""
    channels, side = linear.in_features // linear.side**2, linear.side
    return _convolution(linear, channels, side, linear.step)


def _convolution(linear: nn.Linear, channels: int, side: int = 1, step: int = 1) -> nn.Conv2d:
    conv = nn.Conv2d(channels, linear.out_features, side, dilation=step)
    with torch.no_grad():
        conv.weight.copy_(linear.weight.view_as(conv.weight))
        cast(Tensor, conv.bias).copy_(linear.bias)
    return conv.requires_grad_(False)


class _Score(nn.Module):
    """The score branch from the encoder's reduced features and the encodings to (1, 1, h, w)."""

    def __init__(self, deepmask: DeepMask) -> None:
        super().__init__()
        pooled, head = deepmask.score_encoder, deepmask.score_head
        self.pooled = None if pooled is None else _window_conv(pooled.encode)
        # Of an odd number of cells pooling leaves the last out, so that one window more has room.
        self.odd = deepmask.spec.grid_side % 2 == 1
        layers = [head.hidden, head.score] if head.own is None else [head.own, head.hidden, head.score]
        self.layers = nn.ModuleList(_convolution(layer, layer.in_features) for layer in layers)

    def forward(self, reduced: Tensor, encodings: Tensor) -> Tensor:
        x = encodings
        if self.pooled is not None:
            x = F.relu(self.pooled(F.max_pool2d(reduced, 2, stride=1)))
            x = x[..., :-1, :-1] if self.odd else x
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def logit(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)


def skip_steps(network: DeepMask | SharpMask) -> tuple[int, ...]:
    """Cells of each skip, in the order of `DenseOutput.skips`, for one cell of the coarsest features."""
    return network.refinement.steps if isinstance(network, SharpMask) else ()


class DensePart(nn.Module):
    """Padded images (1, 3, H, W) of more than one window on each axis -> score logits (1, 1, h, w), encodings
    (1, E, h, w) and the skips (1, C_i, H_i, W_i).

    Args:
        network: see `prepared`.
    """

    def __init__(self, network: DeepMask | SharpMask) -> None:
        super().__init__()
        self.network = network
        self.score = _Score(network.deepmask)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        deepmask = self.network.deepmask
        features = deepmask.features(images)
        reduced = deepmask.encoder.reduced(features[-1])
        encodings = deepmask.encoder.encode_reduced(reduced)
        return (self.score(reduced, encodings), encodings, *self.network.skips(features))


class DecodePart(nn.Module):
    """Crops of chosen windows -> their masks, and the boxes of these in the image.

    Args:
        threshold: the probability above which a pixel belongs to a mask.
    """

    def __init__(self, network: DeepMask | SharpMask, threshold: float) -> None:
        super().__init__()
        self.network = network
        self.threshold_logit = logit(threshold)

    def forward(self, windows: Tensor, image_size: Tensor, crops: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Windows (N, 4) xyxy in image pixels, the image's size (2,) H, W as floats, and encodings (N, E) and skips
        (N, C_i, m_i, m_i) -> mask logits (N, M, M) and boxes (N, 4)."""
        logits = self.network.decode_crops(crops)
        return logits, mask_boxes(logits, windows, image_size, self.threshold_logit)


def mask_boxes(logits: Tensor, windows: Tensor, image_size: Tensor, threshold_logit: float) -> Tensor:
    """Boxes (N, 4) xyxy of masks (N, M, M) that lie in windows (N, 4), in whole image pixels; zeros for an empty mask.

    They are the boxes of the pasted masks, found without pasting: the outermost places where the logits, interpolated
    linearly between mask pixels, cross the threshold. Where a mask is made smaller on pasting they can be a pixel off.
    """
    spans = []
    for axis in (1, 0):  # x, then y
        begin, length = windows[:, 1 - axis], windows[:, 3 - axis] - windows[:, 1 - axis]
        lines = _lines_within(
            logits if axis else logits.transpose(1, 2), windows[:, axis], windows[:, axis + 2], image_size[1 - axis]
        )
        first, last = _extent(lines, threshold_logit)
        low = torch.ceil(begin + first * length - 0.5).clamp(min=0)
        high = torch.minimum(torch.floor(begin + last * length - 0.5) + 1, image_size[axis])
        spans.append((low, high))
    (left, right), (top, bottom) = spans
    boxes = torch.stack([left, top, right, bottom], dim=1)
    # A mask may lie in the window wholly outside of the image, or between the centres of two pixels.
    filled = (right > left) & (bottom > top)
    return torch.where(filled[:, None], boxes, 0.0)


def _lines_within(logits: Tensor, begin: Tensor, end: Tensor, size: Tensor) -> Tensor:
    """Masks (N, M, M) whose lines (dimension 1) lie from `begin` to `end` (N,) in an image of `size` pixels: minus
    infinity in lines beyond the image, and two more lines where its outermost pixels have their centres: (N, M + 2, M).
    """
    side = logits.shape[1]
    step = (end - begin) / side
    centres = begin[:, None] + (torch.arange(side) + 0.5) * step[:, None]  # (N, M)
    inside = (centres > 0) & (centres < size)
    border = torch.stack([torch.full_like(size, 0.5), size - 0.5])  # (2,)
    place = ((border - begin[:, None]) / step[:, None] - 0.5).clamp(0, side - 1)  # (N, 2)
    upper = place.floor().clamp(max=side - 2)
    share = (place - upper)[:, :, None]
    first, second = (
        logits.gather(1, (upper.long() + more)[:, :, None].expand(-1, -1, logits.shape[2])) for more in (0, 1)
    )
    between = first + share * (second - first)
    return torch.cat([torch.where(inside[:, :, None], logits, -torch.inf), between], dim=1)


def _extent(logits: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Where along the last axis masks (N, L, M) begin and end (N,), in widths of the window; 1 and 0 where empty."""
    count, side = logits.shape[1:]
    place = torch.arange(side)
    filled = logits.amax(dim=1) > threshold  # (N, M)
    last = torch.where(filled, place, -1).amax(dim=1)
    first = torch.where(filled, place, side).amin(dim=1)

    def reach(inner: Tensor, outer: Tensor) -> Tensor:
        """How far beyond the centre of the column `inner` the mask goes towards the column `outer`: (N,) in 0…1."""
        columns = [
            logits.gather(2, column.clamp(0, side - 1)[:, None, None].expand(-1, count, 1)).squeeze(2)
            for column in (inner, outer)
        ]
        share = (columns[0] - threshold) / (columns[0] - columns[1]).clamp(min=1e-6)
        return torch.where((columns[0] > threshold) & (columns[1] <= threshold), share, 0).amax(dim=1).clamp(0, 1)

    end = torch.where(last == side - 1, side, last + 0.5 + reach(last, last + 1)) / side
    begin = torch.where(first == 0, 0, first + 0.5 - reach(first, first - 1)) / side
    return torch.where(last < 0, 1.0, begin), torch.where(last < 0, 0.0, end)
