"""The faithful WaLLoC against the original package, with random weights."""

import warnings

import pytest
import torch

from latentzip.codecs.walloc.original import import_checkpoint

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    original = pytest.importorskip("walloc.walloc")


@pytest.fixture(params=[(3, 12, 64), (3, 48, 96), (4, 48, 64)], ids=["J3-12c", "J3-48c", "J4-48c"])
def pair(request, tmp_path):
    levels, latent_dim, width = request.param
    torch.manual_seed(0)
    theirs = original.Codec2D(
        channels=3, J=levels, Ne=32, Nd=width, latent_dim=latent_dim, latent_bits=8, lightweight_encode=True
    ).eval()
    with torch.no_grad():
        theirs.encoder[0].weight.mul_(60)  # random weights give latents near zero; spread them over the range
    path = tmp_path / "model.pth"
    torch.save({"model_state_dict": theirs.state_dict(), "config": {"J": levels}}, path)
    return theirs, import_checkpoint(path)


@torch.inference_mode()
def test_latents_and_reconstruction_agree(pair):
    theirs, ours = pair
    x = torch.rand(2, 3, 96, 112, generator=torch.Generator().manual_seed(1))
    bands = theirs.wavelet_analysis(x - 0.5, J=ours.config.J)
    latent = theirs.encoder(bands)
    assert latent.abs().max() > 20
    assert torch.equal(ours.analysis(x), latent.to(torch.int16))
    expected = theirs.wavelet_synthesis(theirs.decoder(latent), J=ours.config.J) + 0.5
    torch.testing.assert_close(ours.synthesis(latent.to(torch.int16), (96, 112)), expected, atol=2e-5, rtol=0)


def test_pickled_configuration_objects_stay_inert(pair, tmp_path):
    theirs, ours = pair

    class Config:
        pass

    import __main__

    __main__.__dict__["Config"] = Config  # what the older checkpoints refer to
    Config.__module__, Config.__qualname__ = "__main__", "Config"
    path = tmp_path / "old.pth"
    torch.save({"model_state_dict": theirs.state_dict(), "config": Config()}, path)
    del __main__.__dict__["Config"]
    again = import_checkpoint(path)
    assert torch.equal(again.encoder.weight, ours.encoder.weight)
