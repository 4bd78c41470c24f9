"""Local and depthwise convolutions on the GPU against their definitions, values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from latentzip.kernels import local_conv

pytest.importorskip("triton")

from latentzip.kernels.cuda.depthwise import depthwise3x3
from latentzip.kernels.cuda.local_conv import local_conv3x3


def with_gradients(function, *tensors, weight):
    given = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in tensors]
    y = function(*given)
    return [y, *torch.autograd.grad((y * weight.to(y.device)).sum(), given)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])
@pytest.mark.parametrize(("channels", "groups", "size"), [(6, 2, (9, 11)), (2, 2, (1, 1))], ids=str)
def test_local_convolution(channels, groups, size, layout, device):
    x = torch.randn(1, channels, *size).contiguous(memory_format=layout)
    taps = torch.randn(1, groups, 9, *size)
    weight = torch.randn(x.shape)
    expected = with_gradients(local_conv.local_conv3x3, x, taps, weight=weight)
    got = with_gradients(local_conv3x3, x.to(device), taps.to(device), weight=weight)
    for a, b in zip(got, expected):
        torch.testing.assert_close(a.cpu(), b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "silu"), [((1, 70, 17, 33), True), ((2, 8, 1, 1), True), ((1, 16, 16, 5), False)], ids=str
)
def test_depthwise(shape, silu, device):
    c = shape[1]
    x, w, b = torch.randn(shape), torch.randn(c, 1, 3, 3), torch.randn(c)
    weight = torch.randn(shape)

    def definition(x, w, b):
        return F.conv2d(F.silu(x) if silu else x, w, b, padding=1, groups=c)

    expected = with_gradients(definition, x, w, b, weight=weight)
    got = with_gradients(lambda *t: depthwise3x3(*t, silu), *(t.to(device) for t in (x, w, b)), weight=weight)
    for a, e in zip(got, expected):
        torch.testing.assert_close(a.cpu(), e, atol=1e-4, rtol=1e-4)


def test_half_precision_keeps_layout_and_dtype(device):
    x = torch.randn(1, 8, 6, 6, device=device).to(torch.bfloat16)
    y = depthwise3x3(x, torch.randn(8, 1, 3, 3, device=device), torch.randn(8, device=device), True)
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_operators_are_registered_whole(device):
    x = torch.randn(1, 4, 3, 2, device=device, requires_grad=True)
    some = ("test_schema", "test_autograd_registration", "test_faketensor")
    taps = torch.randn(1, 2, 9, 3, 2, device=device, requires_grad=True)
    torch.library.opcheck(local_conv3x3, (x, taps), test_utils=some)
    weight, bias = torch.randn(4, 1, 3, 3, device=device), torch.randn(4, device=device)
    torch.library.opcheck(depthwise3x3, (x, weight, bias, True), test_utils=some)


@pytest.mark.hardware
def test_dispatch_by_device():
    from latentzip.kernels.gated_block import BlockWeights, gated_block, reference

    shapes = [(64, 64, 1, 1), (64, 1, 3, 3), (64, 64, 1, 1), (256, 64, 1, 1), (64, 128, 1, 1)]
    weights = BlockWeights(*(a.cuda() for s in shapes for a in (torch.randn(s) * s[1] ** -0.5, torch.randn(s[0]))))
    x = torch.randn(2, 64, 68, 120, device="cuda").contiguous(memory_format=torch.channels_last)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # the products are cuDNN's, and the same on both
        torch.testing.assert_close(gated_block(x, weights, 12.0), reference(x, weights, 12.0), atol=1e-3, rtol=1e-3)
    with torch.autocast("cuda", torch.bfloat16):
        half = gated_block(x, weights, 12.0)
    assert half.dtype == torch.bfloat16
    assert (half.float() - reference(x, weights, 12.0)).abs().mean() < 0.05
    taps = torch.randn(2, 8, 9, 68, 120, device="cuda")
    expected = local_conv.local_conv3x3(x.cpu(), taps.cpu())
    torch.testing.assert_close(local_conv.local_conv3x3(x, taps).cpu(), expected, atol=1e-4, rtol=1e-4)
