"""The rate that training sees is what the coder writes, on latents of photographs."""

from functools import cache

import numpy as np
import pytest
import torch

import latentzip as lz
from latentzip.entropy import Decoder, Encoder, Factorized, Gaussian, Laplace, RateMeter, TableBank, scale_index

CODECS = [c.name for c in lz.list_codecs() if c.modality == "image" and c.name.startswith("walloc")]


@cache
def latents(codec: str) -> np.ndarray:
    """(L, h, w) of a photograph, by a codec of the package; "proxy": principal axes of its wavelet packet."""
    data = pytest.importorskip("skimage.data")
    x = torch.from_numpy(data.astronaut()).permute(2, 0, 1).float() / 255
    if codec != "proxy":
        return lz.load_codec(codec).latent(x).numpy().astype(np.int32)
    from latentzip.kernels.wavelet import wavelet_packet2d

    bands = wavelet_packet2d(x[None] - 0.5, 3, "bior4.4")[0].numpy()
    flat = bands.reshape(len(bands), -1)
    basis = np.linalg.eigh(np.cov(flat))[1][:, :-13:-1].T
    return np.rint(np.einsum("kc,chw->khw", basis, bands) * 12).astype(np.int32)


@pytest.mark.parametrize("codec", CODECS or ["proxy"])
@pytest.mark.parametrize("kind", ["factorized", "gaussian a channel", "gaussian", "laplace", "gaussian max"])
def test_the_differentiable_rate_is_the_coded_length(codec, kind):
    z = latents(codec)
    low = int(z.min())
    shape = (len(z), 1, 1)
    if kind == "factorized":
        bank = TableBank.from_histograms([np.bincount(c.reshape(-1) - low) for c in z], lo=low)
        coding = training = Factorized(bank, z.shape, axis=0)
        symbols = z
    else:
        symbols = z - np.rint(z.mean((1, 2))).astype(np.int32).reshape(shape)
        # a scale that follows the magnitudes around each position, as that of a hyperprior does, or one a channel
        around = torch.nn.functional.avg_pool2d(torch.from_numpy(symbols).double().square()[None], 5, 1, 2)[0]
        if "channel" in kind:
            around = around.mean((1, 2), keepdim=True).expand(z.shape).clone()
        scale = (around.sqrt() + 0.2).requires_grad_()
        family = Laplace if kind == "laplace" else Gaussian
        profile = "max" if "max" in kind else "default"
        coding = family(scale_index(scale.detach()), profile=profile)
        # scales that vary meet the 64 steps from both sides; one a channel may lie between two, so it is the step
        training = coding if "channel" in kind else family(scale=scale, profile=profile)
    meter = RateMeter()
    meter.code(torch.from_numpy(symbols).double().requires_grad_(), training)
    meter.bits.backward()
    encoder = Encoder()
    encoder.code(symbols, coding)
    blob = encoder.finish()
    assert meter.bits.item() / 8 == pytest.approx(len(blob), rel=0.005)
    np.testing.assert_array_equal(np.asarray(Decoder(blob).code(None, coding)), symbols)
