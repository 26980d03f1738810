"""What every network here is made of: symmetric padding, convolution with a frozen affine, cropping.

Shape letters: B images or patches, C channels, H W spatial size.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def symmetric_pad(x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
    """Pad (B, C, H, W) by mirroring, the edge pixel included: a b c -> b a a b c c b.

    The mirrored strips carry no gradient, as in the Torch release, where the padding's backward pass only crops.
    A strip wider than the map itself repeats the mirrored map.
    """
    if max(left, right, top, bottom) == 0:
        return x
    if torch.is_grad_enabled() and x.requires_grad:
        padded: Tensor = _WithoutGradient.apply(x, left, right, top, bottom)
        return padded
    if max(left, right, top, bottom) == 1:
        return F.pad(x, (left, right, top, bottom), mode="replicate")  # the same for one pixel, and faster
    return _mirror(_mirror(x, 3, left, right), 2, top, bottom)


class _WithoutGradient(torch.autograd.Function):
    """`symmetric_pad` for training: the forward pass writes each number once, the backward pass is a crop."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
        ctx.inner = (..., slice(top, top + x.shape[2]), slice(left, left + x.shape[3]))
        if max(left, right) > x.shape[3] or max(top, bottom) > x.shape[2] or max(left, right, top, bottom) == 1:
            return symmetric_pad(x, left, right, top, bottom)  # without gradients in here
        padded = _empty_like(x, x.shape[2] + top + bottom, x.shape[3] + left + right)
        padded[ctx.inner] = x
        rows = padded[:, :, top : top + x.shape[2]]
        rows[..., :left] = x[..., :left].flip(3)
        rows[..., left + x.shape[3] :] = x[..., x.shape[3] - right :].flip(3)
        padded[:, :, :top] = rows[:, :, :top].flip(2)
        padded[:, :, top + x.shape[2] :] = rows[:, :, x.shape[2] - bottom :].flip(2)
        return padded

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:  # type: ignore[override]
        return grad[ctx.inner], None, None, None, None


def _empty_like(x: Tensor, height: int, width: int) -> Tensor:
    """An uninitialised map (B, C, height, width), its channels last in memory where those of `x` are."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty((*x.shape[:2], height, width), dtype=x.dtype, device=x.device, memory_format=layout)


def _mirror(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    size = x.shape[dim]
    if max(before, after) > size:
        period = torch.arange(-before, size + after, device=x.device) % (2 * size)
        return x.index_select(dim, torch.where(period < size, period, 2 * size - 1 - period))
    detached = x.detach()
    parts = [x]
    if before:
        parts.insert(0, detached.narrow(dim, 0, before).flip(dim))
    if after:
        parts.append(detached.narrow(dim, size - after, after).flip(dim))
    return torch.cat(parts, dim) if len(parts) > 1 else x


class PaddedConv2d(nn.Conv2d):
    """Convolution with symmetric instead of zero padding; stride 1 keeps the size, stride 2 halves even sizes.

    Args:
        tf_same: for stride 2, put the padding as TensorFlow's "same" does for even sizes (less before, more after).
        zeros: pad with zeros after all.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
        tf_same: bool = False,
        zeros: bool = False,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride=stride, groups=groups, bias=bias)
        before = after = kernel_size // 2
        if tf_same and stride == 2:
            before, after = (kernel_size - 2) // 2, (kernel_size - 1) // 2
        self.pad = (before, after, before, after)
        self.zeros = zeros
        # Nothing else keeps the signal's scale: with PyTorch's own start it shrinks from layer to layer, and the
        # refinement spends its first thousand steps on finding it again.
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self._padded(x))

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pad) if self.zeros else symmetric_pad(x, *self.pad)


class FrozenAffineConv2d(PaddedConv2d):
    """Convolution followed by a per-channel constant scale and shift: a BatchNorm folded and frozen.

    The convolution's weight is trained; `scale` and `shift` (C,) are buffers and never are.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        tf_same: bool = False,
        zeros: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            groups=groups,
            bias=False,
            tf_same=tf_same,
            zeros=zeros,
        )
        self.register_buffer("scale", torch.ones(out_channels))
        self.register_buffer("shift", torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale[:, None, None, None]
        return self._conv_forward(self._padded(x), weight, self.shift)


class Dropout(nn.Module):
    """Dropout whose masks depend on a row's place in the whole batch, of which this process may hold a part only.

    The masks of the whole batch are drawn, and those of the rows at hand are used. So with the same seed set before the
    step every number of processes drops the same numbers.

    Args:
        p: probability that a number is dropped.

    Attributes:
        rows: (first row, rows of the whole batch), as `set_rows` leaves it; None: the rows at hand are the whole batch.
    """

    rows: tuple[int, int] | None = None

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...), the kept numbers scaled by 1 / (1 - p); unchanged in evaluation mode."""
        if not self.training or self.p == 0:
            return x
        first, total = self.rows or (0, len(x))
        kept = torch.rand((total, *x.shape[1:]), device=x.device) >= self.p
        return x * kept[first : first + len(x)] / (1 - self.p)


def set_rows(network: nn.Module, first: int, total: int) -> None:
    """Tell the dropout of a network that the rows it sees begin at row `first` of a batch of `total`."""
    for module in network.modules():
        if isinstance(module, Dropout):
            module.rows = (first, total)


def crop_centre(x: Tensor, side: int) -> Tensor:
    """The middle side x side cells of (B, C, H, W)."""
    top, left = (x.shape[-2] - side) // 2, (x.shape[-1] - side) // 2
    return x[..., top : top + side, left : left + side]


def crop_windows(x: Tensor, batch_index: Tensor, rows: Tensor, cols: Tensor, *, side: int, step: int = 1) -> Tensor:
    """Crops (N, C, side, side) of (B, C, H, W), top left at (row * step, col * step) of the given images."""
    windows = x.unfold(2, side, step).unfold(3, side, step)  # a view (B, C, h, w, side, side)
    return windows[batch_index, :, rows, cols]


def count_parameters(module: nn.Module) -> int:
    """Weights and biases, trained or not, and the frozen affine pairs; normalisation constants do not count."""
    affine = sum(m.scale.numel() + m.shift.numel() for m in module.modules() if isinstance(m, FrozenAffineConv2d))
    return affine + sum(p.numel() for p in module.parameters())
