"""Symmetric padding and the frozen affine, against numpy's and PyTorch's own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sharpmask.networks.layers import FrozenAffineConv2d, PaddedConv2d, symmetric_pad


@pytest.mark.parametrize("pads", [(1, 1, 1, 1), (3, 3, 3, 3), (0, 1, 0, 1), (1, 2, 0, 3), (7, 0, 0, 9)])
@pytest.mark.parametrize("grad", [False, True])
def test_symmetric_pad_is_numpys(pads: tuple[int, int, int, int], grad: bool) -> None:
    x = torch.rand(2, 3, 5, 6, requires_grad=grad)
    left, right, top, bottom = pads
    expected = np.pad(x.detach().numpy(), ((0, 0), (0, 0), (top, bottom), (left, right)), mode="symmetric")
    np.testing.assert_array_equal(symmetric_pad(x, *pads).detach().numpy(), expected)


def test_symmetric_pad_of_a_map_smaller_than_the_pad() -> None:
    x = torch.rand(1, 1, 2, 1)
    expected = np.pad(x.numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), mode="symmetric")
    np.testing.assert_array_equal(symmetric_pad(x, 3, 3, 3, 3).numpy(), expected)


@pytest.mark.parametrize("pad", [1, 3])
def test_mirrored_strips_carry_no_gradient(pad: int) -> None:
    x = torch.rand(1, 1, 5, 5, requires_grad=True)
    symmetric_pad(x, pad, pad, pad, pad).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_tf_same_padding_of_even_sizes() -> None:
    conv = PaddedConv2d(1, 1, 3, stride=2, tf_same=True)
    assert conv.pad == (0, 1, 0, 1)
    assert PaddedConv2d(1, 1, 5, stride=2, tf_same=True).pad == (1, 2, 1, 2)
    assert conv(torch.rand(1, 1, 8, 6)).shape == (1, 1, 4, 3)


def test_frozen_affine_is_a_folded_batchnorm() -> None:
    conv = FrozenAffineConv2d(3, 4, 1)
    norm = torch.nn.BatchNorm2d(4).eval()
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
        conv.scale.copy_(norm.weight / torch.sqrt(norm.running_var + norm.eps))
        conv.shift.copy_(norm.bias - norm.running_mean * conv.scale)
        x = torch.rand(2, 3, 5, 5)
        torch.testing.assert_close(conv(x), norm(F.conv2d(x, conv.weight)), rtol=1e-5, atol=1e-6)
    assert [name for name, _ in conv.named_parameters()] == ["weight"]


@pytest.mark.parametrize("stride", [1, 2])
def test_zeros_pad_as_the_public_classifiers_do(stride: int) -> None:
    """Against a convolution over a map with a border of zeros, placed as TensorFlow places it."""
    conv = FrozenAffineConv2d(3, 4, 5, stride=stride, tf_same=True, zeros=True)
    conv.scale.uniform_(0.5, 2.0)
    conv.shift.uniform_(-1, 1)
    x = torch.randn(2, 3, 14, 14)
    before, after = (1, 2) if stride == 2 else (2, 2)
    bordered = torch.zeros(2, 3, 14 + before + after, 14 + before + after)
    bordered[:, :, before : before + 14, before : before + 14] = x
    plain = torch.nn.functional.conv2d(bordered, conv.weight, stride=stride)
    torch.testing.assert_close(conv(x), plain * conv.scale[:, None, None] + conv.shift[:, None, None])
