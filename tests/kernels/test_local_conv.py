"""Local convolution against unfolding and against an ordinary convolution."""

import pytest
import torch
import torch.nn.functional as F

from latentzip.kernels.local_conv import local_conv3x3


@pytest.mark.parametrize(("channels", "groups"), [(8, 8), (12, 3), (5, 1)])
def test_equals_unfold_and_multiply(channels, groups):
    x = torch.randn(2, channels, 7, 5, dtype=torch.float64)
    weight = torch.randn(2, groups, 9, 7, 5, dtype=torch.float64)
    columns = F.unfold(x, 3, padding=1).view(2, groups, channels // groups, 9, 7, 5)
    expected = (columns * weight[:, :, None]).sum(3).flatten(1, 2)
    assert torch.allclose(local_conv3x3(x, weight), expected)


def test_one_kernel_everywhere_is_a_convolution():
    x, kernel = torch.randn(1, 4, 6, 9), torch.randn(1, 1, 3, 3)
    weight = kernel.view(1, 1, 9, 1, 1).expand(1, 1, 9, 6, 9)
    expected = F.conv2d(x, kernel.expand(4, 1, 3, 3), padding=1, groups=4)
    assert torch.allclose(local_conv3x3(x, weight), expected, atol=1e-6)


def test_gradients():
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 2, 9, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(local_conv3x3, (x, weight))
