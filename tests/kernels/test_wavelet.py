"""Wavelet packets: PyWavelets as oracle, perfect reconstruction, gradients, edges, tiles."""

import itertools

import numpy as np
import pytest
import pywt
import torch

from latentzip.kernels.packet_product import packet_product, product_packet
from latentzip.kernels.wavelet import (
    Mode,
    inverse_wavelet_packet1d,
    inverse_wavelet_packet2d,
    padded_length,
    wavelet_packet1d,
    wavelet_packet2d,
)

FILTERS = ["haar", "db3", "sym5", "coif2", "bior1.3", "bior2.2", "bior3.5", "bior4.4", "rbio2.4", "dmey"]
ODD_SYMMETRIC = ["bior2.2", "bior2.6", "bior4.4"]


def packet2d_oracle(x: np.ndarray, levels: int, wavelet: str) -> np.ndarray:
    """Every band split again, level by level, with `pywt.dwt2`: (C, H, W) -> (C * 4**levels, ...)."""
    for _ in range(levels):
        bands = []
        for band in x:
            a, details = pywt.dwt2(band, wavelet, "periodization")
            bands += [a, *details]
        x = np.stack(bands)
    return x


def packet1d_oracle(x: np.ndarray, levels: int, wavelet: str) -> np.ndarray:
    for _ in range(levels):
        x = np.stack([part for band in x for part in pywt.dwt(band, wavelet, "periodization")])
    return x


@pytest.mark.parametrize("wavelet", FILTERS)
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_2d_equals_pywavelets(wavelet, levels):
    rng = np.random.default_rng(levels)
    for shape in [(16, 48), (96, 160), (16 * 21, 16)]:
        x = rng.standard_normal((2, *shape)).astype(np.float32)
        ours = wavelet_packet2d(torch.from_numpy(x)[None], levels, wavelet, "periodization")[0]
        np.testing.assert_allclose(ours, packet2d_oracle(x.astype(np.float64), levels, wavelet), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wavelet", FILTERS)
@pytest.mark.parametrize("levels", [1, 3, 5, 8])
def test_1d_equals_pywavelets(wavelet, levels):
    x = np.random.default_rng(0).standard_normal((2, 4096)).astype(np.float32)
    ours = wavelet_packet1d(torch.from_numpy(x)[None], levels, wavelet, "periodization")[0]
    np.testing.assert_allclose(ours, packet1d_oracle(x.astype(np.float64), levels, wavelet), atol=1e-5, rtol=1e-5)


SHAPES = [(1, 1), (1, 9), (5, 7), (8, 8), (17, 100), (63, 65), (130, 257)]


@pytest.mark.parametrize(
    ("mode", "wavelet"),
    [("periodization", w) for w in ("haar", "db3", "bior4.4")] + [("symmetric", w) for w in ODD_SYMMETRIC],
)
@pytest.mark.parametrize("levels", [0, 1, 3, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_2d_perfect_reconstruction_at_any_size(mode, wavelet, levels, shape):
    x = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    y = wavelet_packet2d(x, levels, wavelet, mode)
    assert y.shape == (2, 3 * 4**levels, *(padded_length(n, levels) >> levels for n in shape))
    torch.testing.assert_close(inverse_wavelet_packet2d(y, levels, wavelet, mode, shape), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["periodization", "symmetric"])
@pytest.mark.parametrize("length", [1, 63, 256, 1000, 5000])
def test_1d_perfect_reconstruction_at_any_length(mode, length):
    x = torch.randn(1, 2, length, generator=torch.Generator().manual_seed(0))
    y = wavelet_packet1d(x, 8, "bior4.4", mode)
    assert y.shape == (1, 512, -(-length // 256))
    torch.testing.assert_close(inverse_wavelet_packet1d(y, 8, "bior4.4", mode, length), x, atol=2e-5, rtol=0)


def test_constant_signals_have_no_detail_at_symmetric_edges():
    y = wavelet_packet2d(torch.ones(1, 1, 72, 136, dtype=torch.float64), 3)
    assert y[:, 1:].abs().max() < 1e-10
    torch.testing.assert_close(y[:, 0], torch.full((1, 9, 17), 8.0, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize("mode", ["periodization", "symmetric"])
def test_gradients(mode):
    x = torch.randn(1, 1, 8, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: wavelet_packet2d(t, 2, "bior4.4", mode), x)
    assert torch.autograd.gradcheck(lambda t: inverse_wavelet_packet2d(t.view(1, 16, 2, 4), 2, "bior4.4", mode), x)
    x = torch.randn(1, 2, 300, dtype=torch.float64, requires_grad=True)
    y = wavelet_packet1d(x, 3, "bior4.4", mode)
    g = torch.randn_like(y)
    (grad,) = torch.autograd.grad(y, x, g)
    v = torch.randn_like(x)
    # adjoint identity on a length that uses the interior product and both ends: <A v, g> = <v, A^T g>
    torch.testing.assert_close((wavelet_packet1d(v, 3, "bior4.4", mode) * g).sum(), (v * grad).sum())


def test_tiles_with_a_halo_equal_the_whole():
    x = torch.randn(1, 3, 512, 640, generator=torch.Generator().manual_seed(0))
    whole = wavelet_packet2d(x, 3)
    part = wavelet_packet2d(x[:, :, 128:400, 200:520], 3)
    torch.testing.assert_close(part[:, :, 5:-5, 5:-5], whole[:, :, 21:45, 30:60], atol=1e-5, rtol=0)


def test_strided_and_cropped_inputs():
    base = torch.randn(1, 80, 3, 96)
    x = base.permute(0, 2, 1, 3)[..., 8:88]
    torch.testing.assert_close(wavelet_packet2d(x, 3), wavelet_packet2d(x.clone(), 3))


@pytest.mark.parametrize("levels", [3, 4])
@pytest.mark.parametrize("size", [(1, 1), (8, 24), (16, 16), (40, 200), (136, 72)])
def test_lifting_equals_products(levels, size, monkeypatch):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(levels))
    y = wavelet_packet2d(x, levels)
    back = inverse_wavelet_packet2d(y, levels, size=size)
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    torch.testing.assert_close(y, wavelet_packet2d(x, levels), atol=2e-5, rtol=0)
    torch.testing.assert_close(back, inverse_wavelet_packet2d(y, levels, size=size), atol=2e-5, rtol=0)
    torch.testing.assert_close(back, x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("levels", [3, 4])
def test_lifting_is_the_same_at_any_number_of_threads_and_in_parts(levels):
    x = torch.randn(1, 3, 512, 640, generator=torch.Generator().manual_seed(0))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            y = wavelet_packet2d(x, levels)
            found.append((y, inverse_wavelet_packet2d(y, levels)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found))
    part, s = wavelet_packet2d(x[:, :, 128:400, 208:528], levels), 1 << levels
    inner = slice(128 // s + 5, 400 // s - 5), slice(208 // s + 5, 528 // s - 5)
    assert torch.equal(part[:, :, 5:-5, 5:-5], found[0][0][:, :, inner[0], inner[1]])


@pytest.mark.parametrize("size", [(1, 1), (13, 7), (64, 100)])
def test_products_of_packets_equal_packets_and_products(size, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, bias = torch.rand(2, 3, *size, generator=generator), torch.randn(12, generator=generator)
    there, back = torch.randn(12, 192, generator=generator) / 14, torch.randn(192, 12, generator=generator) / 4
    more = torch.randn(192, generator=generator)

    def both() -> tuple[torch.Tensor, torch.Tensor]:
        y = packet_product(x, 3, "bior4.4", there, bias, -0.5)
        return y, product_packet(y, 3, "bior4.4", back, more, size, 0.5)

    lifted = both()
    bands = wavelet_packet2d(x - 0.5, 3)
    y = torch.einsum("lk,bkhw->blhw", there, bands) + bias[:, None, None]
    monkeypatch.setenv("LATENTZIP_NO_NUMBA", "1")
    for ours, plain in zip(lifted, both()):
        torch.testing.assert_close(ours, plain, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(lifted[0], y, atol=1e-5, rtol=1e-5)
    assert lifted[1].shape == x.shape


@pytest.mark.parametrize("wavelet", ["haar", "db4", "bior3.5"])
def test_symmetric_mode_refuses_other_filters(wavelet):
    with pytest.raises(ValueError, match="odd-length symmetric"):
        wavelet_packet2d(torch.zeros(1, 1, 16, 16), 1, wavelet, "symmetric")


def test_levels_compose():
    x = torch.randn(1, 1, 64, 64)
    modes: list[Mode] = ["periodization", "symmetric"]
    for mode, split in itertools.product(modes, [1, 2]):
        twice = wavelet_packet2d(wavelet_packet2d(x, split, mode=mode), 3 - split, mode=mode)
        torch.testing.assert_close(twice, wavelet_packet2d(x, 3, mode=mode), atol=1e-5, rtol=0)
