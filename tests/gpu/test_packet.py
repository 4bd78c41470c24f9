"""Packets on the GPU against the definition on the CPU: values, gradients, edges, and the encoder fused behind them."""

from typing import Any

import pytest
import torch

from latentzip.kernels import cuda
from latentzip.kernels.compand import compand
from latentzip.kernels.wavelet import (
    inverse_wavelet_packet1d,
    inverse_wavelet_packet2d,
    wavelet_packet1d,
    wavelet_packet2d,
)

pytest.importorskip("triton")

from latentzip.kernels.cuda.packet import packet2d
from latentzip.kernels.cuda.packet1d import packet1d
from latentzip.kernels.cuda.packet_decode import fits, packet_decode
from latentzip.kernels.cuda.packet_encode import packet_encode

FUNCTIONS: Any = {
    1: (packet1d, wavelet_packet1d, inverse_wavelet_packet1d),
    2: (packet2d, wavelet_packet2d, inverse_wavelet_packet2d),
}
CASES = [
    (2, 3, "symmetric", (8, 136)),  # edges and interior; one block beside many
    (2, 3, "symmetric", (72, 16)),
    (2, 2, "periodization", (16, 72)),
    (2, 4, "symmetric", (16, 48)),  # all rows belong to an end
    (1, 4, "symmetric", (2320,)),
    (1, 3, "periodization", (64,)),
    (1, 4, "symmetric", (48,)),
]


@pytest.mark.parametrize(("dims", "levels", "mode", "shape"), CASES, ids=str)
def test_equals_the_definition(dims, levels, mode, shape, device):
    packet, forward, inverse = FUNCTIONS[dims]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, *shape, generator=generator)
    bands = forward(x, levels, "bior4.4", mode)
    on_device = packet(x.to(device), levels, "bior4.4", mode, False, False)
    torch.testing.assert_close(on_device.cpu(), bands, atol=5e-6, rtol=1e-5)
    back = packet(bands.to(device), levels, "bior4.4", mode, True, False)
    torch.testing.assert_close(back.cpu(), inverse(bands, levels, "bior4.4", mode), atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize(("dims", "shape"), [(2, (16, 72)), (1, (2080,))], ids=str)
@pytest.mark.parametrize("inverse", [False, True], ids=["analysis", "synthesis"])
def test_gradient_is_the_adjoint(dims, shape, inverse, device):
    packet, forward, backward = FUNCTIONS[dims]
    s = 8 if dims == 2 else 16
    levels = s.bit_length() - 1
    x = torch.randn(1, s**dims if inverse else 1, *(n // s if inverse else n for n in shape))
    x.requires_grad_()
    y = (backward if inverse else forward)(x, levels)
    weight = torch.randn_like(y)
    (expected,) = torch.autograd.grad((y * weight).sum(), x)
    given = x.detach().to(device).requires_grad_()
    out = packet(given, levels, "bior4.4", "symmetric", inverse, False)
    (grad,) = torch.autograd.grad((out * weight.to(device)).sum(), given)
    torch.testing.assert_close(grad.cpu(), expected, atol=1e-5, rtol=1e-5)


def test_operators_are_registered_whole(device):
    """Schema, shapes without data, and autograd, as `torch.compile` relies on them."""
    x = torch.randn(1, 1, 4, 4, device=device, requires_grad=True)
    some = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(packet2d, (x, 1, "haar", "periodization", False, False), test_utils=some)
    x = torch.randn(1, 2, 4, device=device, requires_grad=True)
    torch.library.opcheck(packet1d, (x, 1, "haar", "periodization", True, False))


def test_half_precision_in_float32_sums(device):
    x = torch.randn(1, 1, 16, 16).to(torch.bfloat16)
    with torch.autocast(device.type, torch.bfloat16):
        y = packet2d(x.to(device), 2, "bior4.4", "symmetric", False, False)
    assert y.dtype == torch.bfloat16
    expected = wavelet_packet2d(x.float(), 2)
    torch.testing.assert_close(y.float().cpu(), expected, atol=0.03, rtol=0.01)


@pytest.mark.parametrize(("levels", "dtype"), [(3, torch.float32), (2, torch.uint8)])
def test_pixels_to_latents(levels, dtype, device):
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 2, 24, 16, generator=generator)
    x = (x * 255).to(dtype) if dtype == torch.uint8 else x
    weight = torch.randn(5, 2 * 4**levels, generator=generator) * 4
    bias = torch.randn(5, generator=generator)
    pixels = x.float() / 255 if dtype == torch.uint8 else x
    linear = torch.einsum("ok,bkhw->bohw", weight, wavelet_packet2d(pixels - 0.5, levels)) + bias[:, None, None]
    args = (levels, "bior4.4", "symmetric")
    weight, bias = weight.to(device), bias.to(device)
    z = packet_encode(x.to(device), weight, bias, *args, 8, -0.5).cpu()
    assert z.dtype == torch.int8
    # floats may fall on the other side of a half; nothing else differs
    real = compand(linear, 8)
    assert bool(((z - real).abs() < 0.5 + 1e-3).all())
    plain = packet_encode(x.to(device), weight, bias, *args, 0, -0.5)
    torch.testing.assert_close(plain.cpu(), linear, atol=2e-4, rtol=1e-4)


def test_latents_to_pixels(device):
    generator = torch.Generator().manual_seed(1)
    z = torch.randint(-9, 10, (1, 5, 2, 11), generator=generator)
    weight, bias = torch.randn(2 * 64, 5, generator=generator), torch.randn(2 * 64, generator=generator)
    values = torch.randn(5, 15, generator=generator)  # magnitudes beyond 7 count as 7
    bands = torch.einsum("ko,bohw->bkhw", weight, values[torch.arange(5)[:, None, None], z.clamp(-7, 7) + 7])
    expected = inverse_wavelet_packet2d(bands + bias[:, None, None], 3) + 0.5
    assert fits(2, 11, 3, "bior4.4", "symmetric", device)
    assert not fits(2, 11, 2, "bior4.4", "symmetric", device)
    args = (t.to(device) for t in (z.to(torch.int8), weight, bias, values))
    x = packet_decode(*args, 3, "bior4.4", "symmetric", 0.5)
    torch.testing.assert_close(x.cpu(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.hardware
@pytest.mark.parametrize("name", ["walloc-rgb-16x", "walloc-rgb-linear"])
def test_bundled_codecs(name):
    from latentzip import load_codec

    codec, on_gpu = load_codec(name), load_codec(name, device="cuda")
    x = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 303, 250), 5, 1, 2)
    z = codec.analysis(x)
    assert (on_gpu.analysis(x.cuda()).cpu() - z).abs().float().mean() < 1e-3
    y = codec.synthesis(z, (303, 250))
    torch.testing.assert_close(on_gpu.synthesis(z.cuda(), (303, 250)).cpu(), y, atol=2e-3, rtol=1e-3)


@pytest.mark.hardware
@pytest.mark.parametrize("size", [(1080, 1920), (63, 65)])
def test_dispatch_by_device(size):
    x = torch.randn(2, 3, *size)
    y = wavelet_packet2d(x, 3)
    torch.testing.assert_close(wavelet_packet2d(x.cuda(), 3).cpu(), y, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(inverse_wavelet_packet2d(y.cuda(), 3, size=size).cpu(), x, atol=2e-5, rtol=1e-5)
    audio = torch.randn(1, 2, 48000)
    z = wavelet_packet1d(audio, 8)
    torch.testing.assert_close(wavelet_packet1d(audio.cuda(), 8).cpu(), z, atol=2e-5, rtol=1e-5)


def test_traces_without_a_break(monkeypatch, device):
    monkeypatch.setattr(cuda, "usable", lambda *tensors: len(tensors) > 0)
    x = torch.randn(1, 1, 8, 8, device=device, requires_grad=True)

    def function(x):
        return wavelet_packet2d(x, 1, "haar", "periodization").tanh()

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    weight = torch.randn(1, 4, 4, 4, device=device)
    (gradient,) = torch.autograd.grad((compiled(x) * weight).sum(), x)
    (expected,) = torch.autograd.grad((function(x) * weight).sum(), x)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.hardware
def test_compiles_without_a_break():
    x = torch.randn(1, 3, 64, 64, device="cuda", requires_grad=True)
    function = torch.compile(lambda t: inverse_wavelet_packet2d(wavelet_packet2d(t, 3).tanh(), 3), fullgraph=True)
    y = function(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.isfinite(gradient).all()
