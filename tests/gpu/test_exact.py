"""Networks that decide intervals give the same integers on every device, whatever its float32 products are made of."""

from typing import Any

import pytest
import torch
from torch import nn

from latentzip.entropy.exact import ExactConv2d, QatConv2d, export, set_compute_dtype


def networks():
    torch.manual_seed(0)
    net = nn.Sequential(
        QatConv2d(9, 32, 1, in_range=(-127, 127), in_frac=0, out_frac=4),
        QatConv2d(32, 32, 3, padding=1, in_frac=4, out_frac=4),
        QatConv2d(32, 16 * 8, 1, in_frac=4, out_range=(0, 511), out_frac=3),
        nn.PixelShuffle(4),
    )
    for layer in net:
        if isinstance(layer, QatConv2d):
            nn.init.normal_(layer.weight, std=0.3)
    return export(net)


def heaviest():
    """A layer whose sums come as near to 2**24 as the bound allows: 255 x 127 x 517 is 16.7 million."""
    one = torch.ones(1, dtype=torch.int64)
    weight = torch.full((1, 517, 1, 1), 127, dtype=torch.int64)
    return ExactConv2d(weight, 0 * one, 0 * one, out_range=(0, 1 << 24))


def bits_kept(x, bits):
    """Floats rounded to so many bits, the leading one included, as tensor cores take their operands."""
    whole = x.float().view(torch.int32)
    drop = 24 - bits
    return ((whole + (1 << (drop - 1))) >> drop << drop).view(torch.float32)


@pytest.mark.parametrize("bits", [11, 8], ids=["tf32", "bf16"])
def test_operands_pass_through_tensor_cores_whole(bits):
    integers = torch.arange(-255, 256)
    assert torch.equal(bits_kept(integers, bits), integers.float())
    assert not torch.equal(bits_kept(torch.tensor([2.0**bits + 1]), bits), torch.tensor([2.0**bits + 1]))


def test_any_order_of_summation_is_exact():
    layer = heaviest()
    x = torch.full((1, 517, 1, 1), 255)
    expected = 517 * 127 * 255
    assert int(layer(x)) == expected
    terms = (127 * 255 * torch.ones(517)).float()
    for order in (torch.arange(517), torch.randperm(517, generator=torch.Generator().manual_seed(0))):
        for parts in (1, 2, 8, 33):  # as split products do
            total = torch.zeros(())
            for part in terms[order].chunk(parts):
                lane = torch.zeros(())
                for t in part:
                    lane = lane + t
                total = total + lane
            assert int(total) == expected


@pytest.mark.hardware
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_same_integers_as_the_cpu(precision):
    """`highest` is float32, `high` TF32, `medium` bfloat16 inside."""
    net, z = networks(), torch.randint(-127, 128, (3, 9, 17, 30))
    heavy, x = heaviest(), torch.full((2, 517, 5, 7), 255)
    expected, full = net(z), heavy(x)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        on_gpu = networks().cuda()
        assert torch.equal(on_gpu(z.cuda()).cpu(), expected)
        assert torch.equal(heaviest().cuda()(x.cuda()).cpu(), full)
        with torch.autocast("cuda", torch.bfloat16):
            assert torch.equal(on_gpu(z.cuda()).cpu(), expected)
        set_compute_dtype(on_gpu, torch.float64)
        assert torch.equal(on_gpu(z.cuda()).cpu(), expected)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.hardware
def test_released_scale_networks():
    from latentzip import load_codec

    codec: Any = load_codec("hyperprior-fast")
    on_gpu: Any = load_codec("hyperprior-fast", device="cuda")
    z = torch.randint(-60, 61, (4, codec.config.hyper, 16, 16)).float()
    with torch.no_grad():
        for quality in (1, 50, 100):
            assert torch.equal(on_gpu.scale_index(z.cuda(), quality).cpu(), codec.scale_index(z, quality))
            if codec.scale_context is not None:
                given = torch.randint(-127, 128, (4, 2 * codec.config.latent + 1, 64, 64)).float()
                for step in (1, 2, 3):
                    correction = codec.scale_context.correction(step, given)
                    assert torch.equal(on_gpu.scale_context.correction(step, given.cuda()).cpu(), correction)
