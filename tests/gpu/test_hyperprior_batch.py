"""Batches of pictures on the GPU write and read the files of the CPU."""

import copy

import numpy as np
import pytest
import torch

from latentzip.codecs.hyperprior.codec import HyperpriorCodec, HyperpriorConfig
from latentzip.data.modality.pictures import PICTURES
from latentzip.entropy import FormatError, UnsupportedError
from latentzip.entropy.tables import TableBank, normalise

pytest.importorskip("triton")

from latentzip.codecs.hyperprior.batch import Compacted, HyperpriorBatch


def tiny(**options):
    torch.manual_seed(0)
    config = HyperpriorConfig(
        width=8, analysis_depth=1, synthesis_depth=1, latent=4, hyper=16, features=8, scale_width=8, **options
    )
    codec = HyperpriorCodec(config, "tiny").eval()
    torch.nn.init.constant_(codec.scale_net[2].get_parameter("bias"), 24.0)
    if codec.scale_context is not None:
        codec.scale_context.fill_scores()
        for net in codec.scale_context.nets:
            torch.nn.init.normal_(net.get_parameter("2.weight"))
    weights = normalise(np.exp(-np.abs(np.arange(-20, 21)) / 4.0), 12)
    codec.freeze(TableBank([normalise(np.append(weights, 1.0), 12)] * 128, [-20] * 128))
    return codec


@pytest.mark.parametrize("context", [0, 8])
def test_files_of_either_side(device, context):
    codec = tiny(context=context)
    x = torch.rand(1, 3, 64, 60)
    batch = HyperpriorBatch(copy.deepcopy(codec).to(device))
    expected = codec.encode(x, 40)
    streams = batch.encode(x.to(device), 40)
    latent = codec.decode(expected, to="latent")
    for ours, theirs in zip(codec.decode(streams, to="latent"), latent):
        assert (ours - theirs).abs().float().mean() < 0.01  # floats may round a symbol differently on another device
    if device.type == "cpu":
        assert streams == expected
    for picture, reference in zip(batch.decode(expected), codec.decode(expected)):
        torch.testing.assert_close(picture.cpu(), reference, atol=1e-4, rtol=1e-4)


def test_packs_are_decoded_on_the_device(device, monkeypatch):
    """Compressed bytes go to the device and pixels come from it, the same as one by one on the CPU."""
    codec = tiny()
    blobs = [codec.encode(torch.rand(1, 3, h, w), 40)[0] for h, w in ((64, 60), (32, 48), (64, 60))]
    expected = PICTURES.signals(blobs, codec, 1)
    there = copy.deepcopy(codec).to(device)
    batch, seen = HyperpriorBatch(there), []
    monkeypatch.setattr(HyperpriorCodec, "_batch", lambda self: batch)
    monkeypatch.setattr(
        batch, "decode", lambda streams, decode=batch.decode: seen.append(len(streams)) or decode(streams)
    )
    found = PICTURES.signals(blobs, there, 1)
    assert seen == [3]
    for ours, theirs in zip(found, expected):
        assert ours.device.type == device.type
        torch.testing.assert_close(ours.cpu(), theirs, atol=1e-4, rtol=1e-4)


def test_other_weights_and_mixtures_are_refused(device):
    codec = tiny()
    streams = codec.encode(torch.rand(1, 3, 64, 64))
    other = tiny().to(device)
    other.std.fill_(2.0)
    with pytest.raises(FormatError, match="stream 0 was made by tiny"):
        HyperpriorBatch(other).decode(streams)
    with pytest.raises(UnsupportedError, match="mixtures"):
        HyperpriorBatch(tiny(components=3))


def test_compaction(device):
    mask = torch.tensor([0, 1, 1, 0, 0, 0, 1, 0, 1], dtype=torch.bool, device=device)
    first, sizes = torch.tensor([0, 3, 6], device=device), torch.tensor([3, 3, 3], device=device)
    coded = Compacted(mask, first, sizes)
    assert coded.first.tolist() == [0, 2, 2]
    assert coded.count.tolist() == [2, 0, 2]
    x = torch.arange(10, 19, device=device)
    assert coded.gather(x).tolist() == [11, 12, 16, 18, 0, 0, 0, 0, 0]
    assert coded.scatter(coded.gather(x)).tolist() == [0, 11, 12, 0, 0, 0, 16, 0, 18]


@pytest.mark.hardware
@pytest.mark.parametrize("size", [(1080, 1920), (200, 77)])
def test_bundled_codec(size):
    from latentzip import load_codec

    codec, on_gpu = load_codec("hyperprior-fast"), load_codec("hyperprior-fast", device="cuda")
    x = torch.rand(2, 3, *size)
    x = torch.nn.functional.avg_pool2d(x, 5, 1, 2)
    streams = on_gpu.encode(x.cuda(), 50)
    latents = codec.decode(streams, to="latent")
    on_device = on_gpu.decode(codec.encode(x, 50))
    for picture, latent, given in zip(on_device, latents, x):
        assert latent.abs().sum() > 0
        assert (picture.cpu() - given).abs().mean() < 0.1
    for a, b in zip(on_gpu.decode(streams), codec.decode(streams)):
        assert (a.cpu() - b).abs().max() < 0.02
