"""Hyperprior codecs with small random weights: what is coded is what decodes, whole, in parts, anywhere."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save

from latentzip import pretrained
from latentzip.codecs import storage
from latentzip.codecs.hyperprior.codec import (
    HyperpriorCodec,
    HyperpriorConfig,
    from_bytes,
    hyper_group,
    round_weights,
    to_tensors,
)
from latentzip.codecs.registry import load_codec
from latentzip.codecs.search.descent import nearest
from latentzip.data import Dequantize
from latentzip.entropy import Encoder, Gaussian, RateMeter, exact
from latentzip.entropy.errors import CodecError, FormatError, InputError
from latentzip.entropy.tables import TableBank

CONFIG = HyperpriorConfig(
    width=16, analysis_depth=1, synthesis_depth=2, latent=16, hyper=16, features=16, scale_width=16
)


def random_codec(seed=0, **options):
    """Weights of a size at which every branch matters."""
    config = replace(CONFIG, **options)
    torch.manual_seed(seed)
    codec = HyperpriorCodec(config, "test")
    with torch.no_grad():
        for name, p in codec.named_parameters():
            if p.ndim == 4:
                p.copy_(torch.randn_like(p) * (0.7 / p[0].numel() ** 0.5))
            elif "log_scale" in name:
                p.copy_(torch.randn_like(p) * 0.2)
        codec.get_parameter("scale_net.2.bias").uniform_(30, 50)
        if codec.scale_context is not None:
            codec.scale_context.fill_scores()
        codec.std.copy_(torch.rand_like(codec.std) + 0.5)
        codec.log_gain.values.copy_(torch.linspace(0, 3, 8)[:, None] + torch.rand(8, config.latent) * 0.2)
    round_weights(codec)
    rng = np.random.default_rng(seed)
    codec.freeze(TableBank.from_histograms(list(rng.random((8 * config.hyper, 31)) + 0.1), lo=-15))
    return codec.eval()


def picture(h, w, seed=0):
    y, x = torch.meshgrid(torch.arange(h) / 40, torch.arange(w) / 40, indexing="ij")
    torch.manual_seed(seed)
    waves = torch.stack([torch.sin(x * (1 + k) + y) * torch.cos(y * (2 - k)) for k in range(3)])
    return (0.5 + 0.4 * waves + 0.03 * torch.randn(3, h, w)).clamp(0, 1)


KINDS = {"gaussian": {}, "mixture": {"components": 3}, "region": {"region": True}, "context": {"context": 8}}


@pytest.fixture(scope="module", params=KINDS)
def codec(request):
    return random_codec(**KINDS[request.param])


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (65, 130), (17, 300)])
@pytest.mark.parametrize("quality", [1, 50, 100])
def test_symbols_come_back_at_every_size_and_quality(codec, size, quality):
    x = picture(*size)
    c = codec.compress(x, quality)
    latent = codec.latent(x, quality)
    assert latent.shape == (17, -(-size[0] // 64) * 4, -(-size[1] // 64) * 4)
    assert torch.equal(codec.decompress(c.params, c.chunks, size, to="latent"), latent)
    assert codec.decompress(c.params, c.chunks, size).shape == (3, *size)


def test_encoder_and_decoder_agree_on_the_latent(codec):
    """The means that the encoder subtracts are those that the decoder adds: y_hat lies within half a step of y."""
    x = picture(128, 192)
    y = codec.transform(x[None], 60)
    latent = codec.latent(x, 60)[None]
    y_hat = codec.values(latent, 60)
    coded = codec.scale_index(torch.nn.functional.pixel_unshuffle(latent[:, :1].float(), 4), 60) > CONFIG.skip
    error = ((y - y_hat) * codec.gain(torch.tensor([60.0]))).abs()
    assert error[coded].max() <= 0.501
    assert coded.float().mean() > 0.5


def test_tiles_and_chunks_leave_no_seam(codec, monkeypatch):
    x = picture(200, 500)
    whole = codec.compress(x, 40)
    reference = codec.decompress(whole.params, whole.chunks, (200, 500))
    monkeypatch.setattr(codec, "tile", 16)
    assert torch.equal(codec.latent(x, 40), codec.decompress(whole.params, whole.chunks, (200, 500), to="latent"))
    tiled = codec.decompress(whole.params, whole.chunks, (200, 500))
    assert torch.allclose(tiled, reference, atol=1e-5)
    monkeypatch.setattr(codec, "chunk", 16)
    chunked = codec.compress(x, 40)
    assert len(chunked.chunks) == 2
    again = codec.decompress(chunked.params, chunked.chunks, (200, 500), to="latent")
    # chunks see zeros where their neighbours' hyper-latents are, so they may skip other elements: a few
    assert (again != codec.latent(x, 40)).float().mean() == 0


def test_region_equals_that_part_of_the_whole(codec, monkeypatch):
    monkeypatch.setattr(codec, "tile", 16)
    monkeypatch.setattr(codec, "chunk", 16)
    x = picture(300, 420)
    c = codec.compress(x, 70)
    whole = codec.decompress(c.params, c.chunks, (300, 420))
    part = codec.decompress(c.params, c.chunks, (300, 420), region=(70, 130, 171, 400))
    assert torch.equal(part, whole[:, 70:171, 130:400])
    latent = codec.decompress(c.params, c.chunks, (300, 420), region=(70, 130, 171, 400), to="latent")
    assert torch.equal(latent, codec.latent(x, 70)[:, 4:12, 8:28])


def test_rate_meter_reads_the_same_program(codec):
    x = picture(256, 256)
    latent = codec.latent(x, 80).numpy().astype(np.int32)
    meter = RateMeter()
    codec.program(meter, latent, latent.shape, 80)
    coded = 8 * sum(map(len, codec.compress(x, 80).chunks))
    assert float(meter.bits) == pytest.approx(coded, rel=0.02)


def test_a_search_counts_the_bits_of_its_symbols(codec):
    x = picture(96, 136)
    with torch.no_grad():
        field = codec.search_field(x, 70)
        (tile,) = field.tiles
        piece = field.piece(tile)
        bits = piece.settle(piece.target, nearest).bits
    assert bits == pytest.approx(8 * sum(map(len, codec.compress(x, 70).chunks)), rel=0.012)


def test_more_quality_takes_more_bits(codec):
    x = picture(128, 128)
    sizes = [len(codec.encode(x[None], q)[0]) for q in (1, 30, 60, 100)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 2 * sizes[0]


@pytest.mark.parametrize("quality", [0, 101, 2.5, "high"])
def test_quality_outside_the_range_is_refused(codec, quality):
    with pytest.raises((InputError, TypeError)):
        codec.compress(picture(8, 8), quality)


def test_scale_numbers_do_not_depend_on_arithmetic(codec):
    z = torch.randint(-40, 41, (1, 16, 9, 7)).float()
    reference = codec.scale_index(z, 33)
    exact.set_compute_dtype(codec.scale_net, torch.float64)
    assert torch.equal(codec.scale_index(z, 33), reference)
    exact.set_compute_dtype(codec.scale_net, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.scale_index(z, 33), reference)
    assert reference.unique().numel() > 4


@pytest.mark.parametrize("components", [1, 3])
def test_training_counts_the_bits_that_coding_spends(components):
    torch.manual_seed(3)
    trained = HyperpriorCodec(replace(CONFIG, components=components, skip=0))
    with torch.no_grad():
        trained.get_parameter("scale_net.2.bias").uniform_(25, 45)
        trained.log_gain.values.copy_(torch.linspace(-1, 2, 8)[:, None] + torch.rand(8, 16))
    z = torch.randint(-30, 31, (1, 16, 8, 8)).float()
    quality = torch.tensor([100.0])  # where gains fall on the grid of scale numbers
    residual = torch.randn(1, 16, 32, 32).mul(2.5).round()
    bits = trained.latent_bits(residual, z, quality).sum().item()
    trained.freeze(TableBank.from_histograms([np.ones(3)] * 128, lo=-1))
    encoder = Encoder()
    if components > 1:
        coded, model = trained.mixture_model(z, 100)
    else:
        step = next(trained.coding_steps(z, 100))
        coded, model = step.coded[0].numpy(), Gaussian(step.number[step.coded].numpy())
    encoder.code(residual[0].int().numpy()[coded], model)
    assert 8 * len(encoder.finish()) == pytest.approx(bits, rel=0.015)


def test_trained_network_and_exact_one_agree():
    torch.manual_seed(3)
    trained = HyperpriorCodec(CONFIG)
    with torch.no_grad():
        trained.log_gain.values.copy_(torch.linspace(-1, 2, 8)[:, None] + torch.rand(8, 16))
    z = torch.randint(-30, 31, (1, 16, 4, 4)).float()
    quality = torch.tensor([41.0])
    plane = trained._quality_plane(z, quality)
    code = trained.scale_net(torch.cat((z, plane), 1))
    trained.freeze(TableBank.from_histograms([np.ones(3)] * 128, lo=-1))
    assert torch.equal(trained.scale_net(torch.cat((z, plane), 1)).float(), code * 8)


SCRIPT = """
import json, sys
import torch
sys.path.insert(0, sys.argv[1])
from test_hyperprior import picture, random_codec
codec = random_codec(**json.loads(sys.argv[5]))
blob = open(sys.argv[2], "rb").read()
with torch.autocast("cpu", torch.bfloat16, enabled=sys.argv[3] == "bf16"):
    latent = codec.decode([blob], to="latent")[0]
    x = codec.decode([blob])[0]
torch.save((latent, x), sys.argv[4])
"""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_symbols_decode_alike_with_other_threads_and_kernels(codec, tmp_path, precision):
    x = picture(200, 260)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.backends.mkldnn.flags(enabled=False), torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
            blob = codec.encode(x[None], 55)[0]
            latent = codec.decode([blob], to="latent")[0]
        here = codec.decode([blob])[0]
    finally:
        torch.set_num_threads(threads)
    (tmp_path / "x.ltz").write_bytes(blob)
    folder, file, out = str(__file__).rsplit("/", 1)[0], str(tmp_path / "x.ltz"), str(tmp_path / "out.pt")
    options = json.dumps({key: getattr(codec.config, key) for key in ("components", "region", "context")})
    subprocess.run([sys.executable, "-c", SCRIPT, folder, file, precision, out, options], check=True)
    there_latent, there = torch.load(out)
    assert torch.equal(there_latent, latent)
    assert (there - here).abs().mean() < (1e-5 if precision == "fp32" else 0.02)


def test_weights_file_holds_all(codec):
    blob = save(*to_tensors(codec))
    again = from_bytes(blob)
    assert again.fingerprint == codec.fingerprint
    x = picture(96, 80)
    stream = codec.encode(x[None], 20)
    assert again.encode(x[None], 20) == stream
    assert torch.allclose(again.decode(stream)[0], codec.decode(stream)[0], atol=1e-5)
    first, second = to_tensors(codec)[0], to_tensors(again)[0]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    for damaged in (b"", blob[:100], save({"a": torch.ones(1)}, {"format": "1", "codec": "x", "config": "{}"})):
        with pytest.raises(FormatError):
            from_bytes(damaged)


def test_weights_may_rest_on_another_release(codec, monkeypatch):
    base = save(*to_tensors(codec))

    class Release(pretrained.Entry):
        def read(self):
            return base

    release = Release("other", "1", "", "", codec.fingerprint.hex(), "", "image", "", False, True)
    monkeypatch.setattr(pretrained, "find", lambda name, fingerprint: release)
    changed = from_bytes(base)
    with torch.no_grad():
        changed.get_parameter("means.first.bias").add_(1)
    tensors, metadata = to_tensors(changed)
    storage.share(tensors, metadata, release)
    assert list(tensors) == ["model.means.first.bias"]
    assert from_bytes(save(tensors, metadata)).fingerprint == changed.fingerprint != codec.fingerprint


def test_damaged_chunks_are_refused_or_decode_to_something(codec):
    x = picture(64, 64)
    c = codec.compress(x, 30)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        data = bytearray(c.chunks[0])
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            codec.decompress(c.params, [bytes(data)], (64, 64))
        except CodecError:
            refused += 1
    assert refused > 30


def test_groups_of_qualities_cover_the_range():
    groups = [hyper_group(q) for q in range(1, 101)]
    assert groups[0] == 0
    assert groups[-1] == 7
    assert groups == sorted(groups)


def test_untrained_codec_says_what_to_do():
    with pytest.raises(InputError, match=r"scripts/train\.py"):
        HyperpriorCodec(CONFIG, "bare").compress(picture(8, 8), 50)


def test_region_tokens_follow_the_mask():
    """What one region holds does not reach another one far away, and a mask of grid cells is the grid."""
    from latentzip.codecs.hyperprior.region import RegionAdaptive

    torch.manual_seed(0)
    net = RegionAdaptive(16)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.3)
    x = torch.randn(2, 16, 16, 24)
    rows, columns = torch.meshgrid(torch.arange(16) // 8, torch.arange(24) // 8, indexing="ij")
    cells = (rows * 3 + columns).expand(2, -1, -1)
    assert torch.allclose(net(x, cells), net(x), atol=1e-5)
    halves = (torch.arange(24) >= 12).long().expand(2, 16, -1)
    changed = x.clone()
    changed[0, :, 0, 23] += 3
    moved = (net(changed, halves) - net(x, halves)).abs().amax(1)
    assert moved[0, 15, 12:].max() > 1e-6
    assert moved[0, :, :11].max() == 0
    assert moved[1].max() == 0


def test_pixels_do_not_depend_on_the_number_of_threads(codec):
    stream = codec.encode(picture(150, 210)[None], 45)
    threads, pictures = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            pictures.append(codec.decode(stream)[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*pictures)


def test_latents_are_not_dequantised_one_by_one(codec):
    with pytest.raises(InputError, match=r"codec\.values"):
        Dequantize(codec, quality=50)


def test_large_pictures_in_bands_are_the_whole(monkeypatch):
    """Bands with halos give the integers of the whole, chunks of uneven sides included, and hold few rows at a time."""
    from latentzip.codecs.hyperprior import bands

    codec = load_codec("hyperprior-fast")
    monkeypatch.setattr(codec, "chunk", 16)
    monkeypatch.setattr(bands, "_TILE", 16)
    y, x = torch.meshgrid(torch.arange(2500), torch.arange(420), indexing="ij")
    waves = [torch.sin(x / (5 + c)) * torch.cos(y / 7) * 0.3 + 0.5 for c in range(3)]
    noise = torch.rand(3, 2500, 420, generator=torch.Generator().manual_seed(1)) / 5
    picture = (torch.stack(waves) + noise).clamp(0, 1)
    whole = codec.latent(picture, 40)
    monkeypatch.setattr("latentzip.codecs.hyperprior.codec.LARGE", 100)
    held = []
    part = bands._Rows.part
    monkeypatch.setattr(bands._Rows, "part", lambda rows, t: (part(rows, t), held.append(len(rows._strips)))[0])
    assert torch.equal(codec.latent(picture, 40), whole)
    assert max(held) <= 5
    assert [top for top, _ in codec.latent_bands(picture, 40)] == [16 * i for i in range(10)]
