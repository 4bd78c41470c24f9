"""Exact networks: the same integers on every path that could have given others."""

import copy
import os

import pytest
import torch
from torch import nn

from latentzip.entropy.errors import InputError
from latentzip.entropy.exact import (
    ExactConv2d,
    ExactLinear,
    QatConv2d,
    QatLinear,
    check_export,
    export,
    relaxed,
    restore,
    scale_of,
    set_compute_dtype,
)


@pytest.fixture(scope="module")
def trained() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        QatConv2d(8, 32, 1, in_range=(-127, 127), in_frac=0, out_frac=3),
        QatConv2d(32, 32, 3, padding=1, in_frac=3, out_frac=5),
        QatConv2d(32, 64, 3, padding=1, stride=2, groups=2, in_frac=5, out_frac=0, out_range=(0, 63)),
        nn.PixelShuffle(2),
    )
    with torch.no_grad():
        for name, value in net[2].named_parameters():
            value.copy_(value * 20 if name == "weight" else value + 20)
    return net


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return torch.randint(-40, 41, (4, 8, 14, 22), generator=torch.Generator().manual_seed(1))


def reference(net: nn.Sequential, z: torch.Tensor) -> torch.Tensor:
    """The same layers in int64, tap by tap."""
    x = z.long()
    for layer in net:
        if not isinstance(layer, ExactConv2d):
            x = layer(x)
            continue
        x = x.clamp(*layer.in_range)
        y = nn.functional.conv2d(
            x, layer.weight.long(), layer.bias.long(), layer.stride, layer.padding, groups=layer.groups
        )
        shift = layer.shift.long().view(1, -1, 1, 1)
        x = ((y + ((1 << shift) >> 1)) >> shift).clamp(*layer.out_range)
    return x


def test_trained_and_exported_nets_agree_number_for_number(trained, latents):
    exact = export(trained)
    out = exact(latents)
    assert out.dtype == torch.int32
    assert out.unique().numel() > 20
    assert torch.equal(out.long(), reference(exact, latents))
    assert torch.equal(trained(latents.float()).int(), out)


def test_the_bound_is_reported_a_layer(trained):
    bounds = check_export(export(trained))
    assert list(bounds) == ["0", "1", "2"]
    assert all(0 < b < 2**24 for b in bounds.values())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mkldnn", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_integers_in_every_setting(trained, latents, threads, mkldnn, layout, dtype):
    exact = export(trained)
    expected = exact(latents)
    set_compute_dtype(exact, dtype)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.backends.mkldnn.flags(enabled=mkldnn):
            x = latents.to(memory_format=layout)
            assert torch.equal(exact(x), expected)
            assert torch.equal(torch.cat([exact(x[i : i + 1]) for i in range(4)]), expected)
    finally:
        torch.set_num_threads(before)


def test_autocast_and_matmul_precision_do_not_reach_it(trained, latents):
    exact = export(trained)
    expected = exact(latents)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(exact(latents), expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_compiled(trained, latents):
    backend = "inductor" if os.environ.get("LATENTZIP_SLOW") else "aot_eager"  # inductor takes a minute to compile
    exact = export(trained)
    assert torch.equal(torch.compile(exact, backend=backend)(latents), exact(latents))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("tf32", [True, False])
def test_gpu(trained, latents, tf32):
    exact = export(trained)
    expected = exact(latents)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        assert torch.equal(exact.cuda()(latents.cuda()).cpu(), expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_linear_and_gradients():
    torch.manual_seed(0)
    net = nn.Sequential(
        QatLinear(6, 16, in_range=(-127, 127), in_frac=0, out_frac=4), QatLinear(16, 3, in_frac=4, out_frac=2)
    )
    x = torch.randint(-20, 20, (5, 7, 6)).float()
    y = net(x)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert torch.equal((y * 4).int(), export(net)(x))


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_exported_nets_without_rounding(kind, trained, latents):
    """Near their integers, with the values of the trainable twin off its grids, and differentiable."""
    torch.manual_seed(0)
    net, z, unit = copy.deepcopy(trained), latents.float(), 1
    if kind == "linear":
        net = nn.Sequential(
            QatLinear(6, 16, in_range=(-127, 127), in_frac=0, out_frac=4), QatLinear(16, 3, in_frac=4, out_frac=2)
        )
        z, unit = torch.randint(-20, 20, (5, 7, 6)).float(), 4
    exact = export(net)
    restore(net, exact)  # the same weights, on the grid
    for layer in net:
        if isinstance(layer, (QatConv2d, QatLinear)):
            layer.quantised = False
    out = relaxed(exact, z)
    torch.testing.assert_close(out, net(z) * unit, rtol=1e-4, atol=1e-4)
    assert (out - exact(z)).abs().mean() < 1
    part = (z[:1, :, :2, :2] if kind == "conv" else z[0, :2]).double() + 0.3
    assert torch.autograd.gradcheck(lambda x: relaxed(exact, x), part.requires_grad_(True))


def test_training_reduces_a_loss():
    torch.manual_seed(0)
    net = nn.Sequential(
        QatLinear(4, 16, in_range=(-127, 127), in_frac=0, out_frac=3),
        QatLinear(16, 1, in_frac=3, out_frac=0, out_range=(0, 63)),
    )
    x = torch.randint(-10, 11, (64, 4)).float()
    target = (x[:, :1].abs() * 3 + 10).round()
    optimiser = torch.optim.Adam(net.parameters(), 0.03)
    losses = []
    for _ in range(50):
        loss = (net(x) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5


def test_refusals_say_why(trained):
    big = torch.full((2, 2000), 127)
    with pytest.raises(InputError, match=r"channel 0 of an exact layer can reach \d+, 2\*\*24"):
        ExactLinear(big, torch.zeros(2).long(), torch.zeros(2).long(), (0, 255), (0, 255))
    with pytest.raises(InputError, match="has no exact form"):
        export(nn.Sequential(trained[0], nn.GELU()))
    with pytest.raises(InputError, match="fraction bits"):
        export(nn.Sequential(trained[0], trained[2]))
    with pytest.raises(InputError, match="float32 or float64"):
        set_compute_dtype(trained, torch.bfloat16)


def test_scale_of_inverts_scale_index():
    from latentzip.entropy import scale_index, scales

    index = torch.arange(64)
    torch.testing.assert_close(scale_of(index.double()), torch.from_numpy(scales().copy()))
    assert torch.equal(scale_index(scale_of(index.double())).long(), index)
