"""Search at encode time on the weights that ship: better, never worse, the same every time, decoded as ever."""

from typing import Any

import numpy as np
import pytest
import torch

from latentzip import InputError, load_codec
from latentzip.codecs.base import Codec
from latentzip.codecs.hyperprior.search import lambda_of, spread_of
from latentzip.codecs.search.descent import nearest
from latentzip.codecs.search.run import frozen

CODECS = ("hyperprior-fast", "gmm", "region")


@pytest.fixture(scope="module")
def x():
    """Edges, a gradient, some texture: (3, 96, 136)."""
    g = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.linspace(0, 1, 96), torch.linspace(0, 1, 136), indexing="ij")
    plain = torch.stack((rows, columns, (rows + columns) / 2))
    plain[:, 30:70, 40:90] = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    return (plain + 0.04 * torch.randn(3, 96, 136, generator=g)).clamp(0, 1)


def cost(codec, x, quality, packed, weight=None):
    """Bits and weighted distortion of a stream, decoded for real."""
    y = codec.decompress(packed.params, packed.chunks, tuple(x.shape[1:]))
    error = (y - x).square().mean(0) * 255**2
    error = error if weight is None else error * weight / weight.mean()
    return 8 * sum(map(len, packed.chunks)) + lambda_of(quality) * float(error.sum())


@pytest.mark.parametrize("name", CODECS)
def test_more_effort_serves_better(name, x):
    codec = load_codec(name)
    before = [p.requires_grad for p in codec.parameters()]
    costs = [cost(codec, x, 50, codec.compress(x, 50, effort=effort)) for effort in (0, 1, 3)]
    assert costs[2] < 0.995 * costs[0]
    assert costs[1] <= costs[0]
    assert [p.requires_grad for p in codec.parameters()] == before


def test_annealed_rounding_serves_better(x):
    codec = load_codec("hyperprior-fast")
    part = x[:, :64, :64]
    costs = [cost(codec, part, 50, codec.compress(part, 50, effort=effort)) for effort in (0, 6)]
    assert costs[1] < 0.985 * costs[0]


@pytest.mark.parametrize("name", ["hyperprior-fast", "gmm"])
def test_a_hyper_latent_knows_what_it_does_to_the_rate_of_symbols(name, x):
    """Bits are those that the tables say, and their slope by the hyper-latent is where they go for a step of it."""
    codec: Any = load_codec(name)
    with frozen(codec), torch.no_grad():
        field = codec.search_field(x, 50)
        piece = field.piece(field.tiles[0])
        symbols = piece.settle(piece.target, nearest).symbols
        z = piece.inner_z.clone()
        plain = spread_of(codec, z, 50).bits(symbols)
        with torch.enable_grad():
            z.requires_grad_(True)
            bits = spread_of(codec, z, 50).bits(symbols)
            (slope,) = torch.autograd.grad(bits.sum(), z)
        torch.testing.assert_close(bits.detach(), plain)
        held = []
        for i in slope.abs().flatten().topk(24).indices:
            step = torch.zeros(z.numel())
            step[i] = slope.flatten()[i].sign()
            there, back = (z.detach() + sign * step.view_as(z) for sign in (1, -1))
            held.append(
                spread_of(codec, there, 50).bits(symbols).sum() > spread_of(codec, back, 50).bits(symbols).sum()
            )
    assert sum(held) > 0.75 * len(held)


def test_the_same_every_time(x):
    codec = load_codec("hyperprior-fast")
    first, again = (codec.compress(x, 30, effort=2) for _ in range(2))
    assert first == again


def test_effort_0_is_one_pass(x):
    codec = load_codec("hyperprior-fast")
    assert codec.compress(x, 30, effort=0) == codec.compress(x, 30)


def test_pieces_are_as_good_as_the_whole(x, monkeypatch):
    codec = load_codec("hyperprior-fast")
    whole = cost(codec, x, 50, codec.compress(x, 50, effort=2))
    monkeypatch.setattr(type(codec), "chunk", 16)
    wide = torch.cat((x, x), 2)
    seen = []
    packed = codec.compress(wide, 50, effort=2, progress=lambda done, total: seen.append((done, total)))
    assert len(packed.chunks) == 2
    plain = cost(codec, wide, 50, codec.compress(wide, 50))
    assert cost(codec, wide, 50, packed) < 0.995 * plain
    assert whole < plain
    assert seen[-1][0] <= seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_weights_say_where_bits_go(x):
    codec = load_codec("hyperprior-fast")
    weight = torch.full((96, 136), 0.05)
    weight[:, :68] = 1
    plain = codec.compress(x, 40, effort=2)
    bent = codec.compress(x, 40, effort=2, weight=weight.numpy())
    y, z = (codec.decompress(p.params, p.chunks, (96, 136)) for p in (plain, bent))
    shares = [float((t - x)[..., :68].square().sum() / (t - x).square().sum()) for t in (y, z)]
    assert shares[1] < shares[0]
    assert cost(codec, x, 40, bent, weight) < cost(codec, x, 40, plain, weight)


def test_a_function_of_ones_own(x):
    codec = load_codec("hyperprior-fast")
    blur = torch.nn.AvgPool2d(4)

    def own(a, b):
        return (blur(a) - blur(b)).square().mean((1, 2, 3))

    def rated(**options):
        packed = codec.compress(x, 40, **options)
        y = codec.decompress(packed.params, packed.chunks, (96, 136))
        return float(own(x[None], y[None])), float((x - y).square().mean()), 8 * sum(map(len, packed.chunks))

    error, squared, bits = rated()
    found, _, found_bits = rated(effort=3, objective=own)
    unit = lambda_of(40) * 255**2 * x[0].numel() * squared / error
    assert found * unit + found_bits < error * unit + bits


def test_thrift_trades_quality_for_bytes(x):
    codec = load_codec("hyperprior-fast")
    sizes = [sum(map(len, codec.compress(x, 50, effort=2, thrift=t).chunks)) for t in (0.6, 1, 2)]
    assert sizes[0] >= sizes[1] >= sizes[2] < sizes[0]


def test_an_interrupt_leaves_the_codec_as_it_was(x):
    codec = load_codec("hyperprior-fast")

    def stop(done, total):
        raise KeyboardInterrupt

    asking = [p.requires_grad for p in codec.parameters()]
    with pytest.raises(KeyboardInterrupt):
        codec.compress(x, 50, effort=1, progress=stop)
    assert [p.requires_grad for p in codec.parameters()] == asking


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"effort": 10}, "effort is 10; hyperprior-fast takes 0"),
        ({"effort": 1.5}, "effort is 1.5"),
        ({"weight": np.ones((96, 136))}, "effort from 1 to 9"),
        ({"effort": 1, "weight": np.ones((15, 20))}, r"\(15, 20\), the picture \(96, 136\)"),
        ({"effort": 1, "weight": np.zeros((96, 136))}, "zero everywhere"),
        ({"effort": 1, "objective": "vmaf"}, "objective is 'vmaf'"),
    ],
)
def test_refusals(x, options, message):
    with pytest.raises(InputError, match=message):
        load_codec("hyperprior-fast").compress(x, 50, **options)


@pytest.mark.parametrize(("name", "quality"), [("walloc-rgb-16x", None), ("walloc-rgb-linear", 50)])
def test_walloc_moves_latents_through_its_context_model(name, quality, x):
    codec = load_codec(name)

    def rated(effort):
        packed = codec.compress(x, quality, effort=effort)
        y = codec.decompress(packed.params, packed.chunks, (96, 136))
        return 8 * sum(map(len, packed.chunks)), float((y - x).square().sum()) * 255**2 / 3

    with torch.no_grad(), frozen(codec):
        trade = codec.search_field(x, quality or 0).trade
    (bits, error), (found_bits, found_error) = rated(0), rated(2)
    assert found_bits + trade * found_error < bits + trade * error


def test_a_codec_that_does_not_search(x):
    class Plain(type(load_codec("walloc-rgb-16x"))):
        searches = False
        search_field = Codec.search_field

    codec = Plain(load_codec("walloc-rgb-16x").config)
    with pytest.raises(InputError, match="its encoder does not search"):
        codec.compress(x, effort=3)
