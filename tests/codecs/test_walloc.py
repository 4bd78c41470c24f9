"""WaLLoC through the codec contract: sizes, tiles, regions, threads, batches, storage."""

from typing import ClassVar

import numpy as np
import pytest
import torch

from latentzip import pretrained
from latentzip.codecs.registry import list_codecs, load_codec
from latentzip.codecs.walloc.codec import NEUTRAL, Walloc, WallocConfig, from_bytes
from latentzip.codecs.walloc.nets import Decoder
from latentzip.codecs.walloc.weights import to_tensors
from latentzip.entropy.errors import CodecError, FormatError, InputError

BUNDLED = [i.name for i in list_codecs() if i.name.startswith("walloc") and i.modality == "image"]


def picture(height, width, seed=0):
    """Smooth shapes plus noise, (3, H, W) in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 64
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(-3, 3, (3, 3))]
    noise = rng.normal(0, 0.05, (3, height, width))
    return torch.from_numpy(np.clip(0.5 + 0.3 * np.stack(waves) + noise, 0, 1)).float()


@pytest.fixture(params=BUNDLED)
def codec(request):
    return load_codec(request.param)


def round_trip(codec, x, **kwargs):
    c = codec.compress(x)
    return codec.decompress(c.params, c.chunks, x.shape[-2:], **kwargs)


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (8, 8), (9, 31), (65, 3), (120, 200)], ids=str)
def test_any_size(codec, size):
    x = picture(*size)
    y = round_trip(codec, x)
    assert y.shape == x.shape
    assert y.dtype == torch.float32
    latent = round_trip(codec, x, to="latent")
    assert latent.dtype == torch.int8
    assert latent.shape == (codec.latent_channels, -(-size[0] // 8), -(-size[1] // 8))


def test_latents_survive_exactly(codec):
    x = picture(150, 90)
    assert torch.equal(
        round_trip(codec, x, to="latent").short(),
        codec.latent(x, codec.default_quality if codec.variable_rate else None),
    )


def test_tiled_equals_whole(codec, monkeypatch):
    x = picture(250, 330)
    latent = codec.latent(x)
    whole = codec.synthesis(latent[None], (250, 330), codec.default_quality if codec.variable_rate else None)[0].clamp(
        0, 1
    )
    c = codec.compress(x)
    monkeypatch.setattr(type(codec), "tile", 16)
    tiled = codec.decompress(c.params, c.chunks, (250, 330))
    assert (tiled - whole).abs().max() < 1e-5
    # rounding may fall the other way for a latent whose value lies on the border within float error
    assert (codec.latent(x) != latent).float().mean() < 1e-3


def test_region_equals_the_part_of_the_whole(codec, monkeypatch):
    monkeypatch.setattr(type(codec), "tile", 24)
    monkeypatch.setattr(type(codec), "chunk", 16)
    x = picture(260, 390)
    c = codec.compress(x)
    assert len(c.chunks) == 3 * 4
    whole = codec.decompress(c.params, c.chunks, (260, 390))
    latent = codec.decompress(c.params, c.chunks, (260, 390), to="latent")
    for top, left, bottom, right in [(0, 0, 1, 1), (100, 37, 180, 201), (259, 389, 260, 390), (0, 0, 260, 390)]:
        part = codec.decompress(c.params, c.chunks, (260, 390), region=(top, left, bottom, right))
        assert torch.equal(part, whole[:, top:bottom, left:right])
        part = codec.decompress(c.params, c.chunks, (260, 390), region=(top, left, bottom, right), to="latent")
        assert torch.equal(part, latent[:, top // 8 : -(-bottom // 8), left // 8 : -(-right // 8)])


def test_region_touches_only_the_chunks_it_needs(codec, monkeypatch):
    monkeypatch.setattr(type(codec), "chunk", 16)
    monkeypatch.setattr(type(codec), "tile", 16)
    x = picture(128, 1280)
    c = codec.compress(x)

    class Lazy(list):
        touched: ClassVar = set()

        def __getitem__(self, i):
            self.touched.add(i)
            return super().__getitem__(i)

    chunks = Lazy(c.chunks)
    codec.decompress(c.params, chunks, (128, 1280), region=(0, 0, 100, 60))
    assert chunks.touched <= {0, 1, 2}


@pytest.mark.parametrize("region", [(0, 0, 0, 5), (5, 5, 4, 9), (-1, 0, 4, 4), (0, 0, 41, 4)], ids=str)
def test_region_outside_is_refused(codec, region):
    c = codec.compress(picture(40, 40))
    with pytest.raises(InputError, match="region"):
        codec.decompress(c.params, c.chunks, (40, 40), region=region)


def test_a_quality_is_a_rate_and_a_distortion(codec):
    if not codec.variable_rate:
        with pytest.raises(InputError, match="one fixed rate"):
            codec.compress(picture(40, 40), 50)
        return
    x = picture(200, 240)
    sizes, errors = [], []
    for quality in (5, 30, 55, 75, 95):
        c = codec.compress(x, quality)
        sizes.append(sum(map(len, c.chunks)))
        errors.append((codec.decompress(c.params, c.chunks, (200, 240)) - x).square().mean().item())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert sizes[-1] > 4 * sizes[0]
    assert errors[0] > 1.2 * errors[-1]


def test_at_the_neutral_quality_latents_are_those_of_the_release_of_one_rate():
    x = picture(120, 200)
    old = from_bytes(pretrained.release("walloc-rgb-16x", "1").read())
    new = load_codec("walloc-rgb-16x")
    assert torch.equal(new.latent(x), old.latent(x))
    assert torch.equal(new.latent(x, NEUTRAL), old.latent(x))
    assert not torch.equal(new.latent(x, NEUTRAL - 20), old.latent(x))


def test_a_network_is_told_how_fine_the_latent_is():
    torch.manual_seed(0)
    told = Decoder(4, 12, width=8, depth=1, told=True)
    torch.nn.init.normal_(told.conv_out.weight, 0, 0.1)
    y = torch.randn(3, 4, 9, 7)
    apart = torch.tensor([-2.0, 0.0, 1.0])
    together = told(y, apart)
    for i, fineness in enumerate(apart.tolist()):
        assert torch.allclose(together[i], told(y[i : i + 1], fineness)[0], atol=1e-6)
    assert not torch.allclose(together[0], told(y[:1])[0], atol=1e-3)


def test_a_prefix_of_the_channels_decodes(codec):
    x = picture(120, 160)
    c = codec.compress(x)
    whole = codec.decompress(c.params, c.chunks, (120, 160), to="latent")
    errors = []
    for channels in (1, 3, codec.latent_channels // 2, codec.latent_channels):
        part = codec.decompress(c.params, c.chunks, (120, 160), to="latent", channels=channels)
        assert torch.equal(part, whole[:channels])
        y = codec.decompress(c.params, c.chunks, (120, 160), channels=channels)
        errors.append((y - x).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    for channels in (0, codec.latent_channels + 1):
        with pytest.raises(InputError, match="channels"):
            codec.decompress(c.params, c.chunks, (120, 160), channels=channels)


def test_threads_do_not_change_a_bit(codec):
    x = picture(400, 530)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            c = codec.compress(x)
            results.append((c, codec.decompress(c.params, c.chunks, (400, 530))))
    finally:
        torch.set_num_threads(before)
    for c, y in results[1:]:
        assert c == results[0][0]
        assert torch.equal(y, results[0][1])


def test_batches_equal_singles(codec):
    x = torch.stack([picture(72, 88, s) for s in range(3)])
    streams = codec.encode(x)
    assert streams == [codec.encode(i[None])[0] for i in x]
    for one, y in zip(x, codec.decode(streams)):
        assert torch.equal(y, round_trip(codec, one))


def test_wrong_input_is_named(codec):
    with pytest.raises(InputError, match=r"\(3, H, W\)"):
        codec.compress(torch.zeros(1, 8, 8))
    with pytest.raises(InputError, match="NaN"):
        codec.compress(torch.full((3, 8, 8), float("nan")))
    if codec.variable_rate:
        for quality in (0, 101, 3.5):
            with pytest.raises(InputError, match=r"1 .* to 100"):
                codec.compress(torch.zeros(3, 8, 8), quality)
    else:
        with pytest.raises(InputError, match="fixed rate"):
            codec.compress(torch.zeros(3, 8, 8), 50)


def test_foreign_parameters_are_refused(codec):
    c = codec.compress(picture(40, 40))
    q = c.params[1]
    for params in (b"", b"\x07" + c.params[1:], bytes([1, 101, 8]), bytes([1, q, 0]), c.params + b"\0"):
        with pytest.raises(FormatError):
            codec.decompress(params, c.chunks, (40, 40))
    with pytest.raises(FormatError, match="chunks"):
        codec.decompress(c.params, c.chunks * 2, (40, 40))


def test_quality_orders_size_and_error():
    codec = load_codec("walloc-rgb-linear")
    x = picture(192, 256)
    sizes, errors = [], []
    for quality in (1, 20, 40, 60, 80, 100):
        c = codec.compress(x, quality)
        sizes.append(sum(map(len, c.chunks)))
        errors.append((codec.decompress(c.params, c.chunks, (192, 256)) - x).square().mean().item())
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_linear_codec_is_its_own_definition():
    """At full precision the linear codec projects on its basis: errors are those of the dropped components only."""
    codec = load_codec("walloc-rgb-linear")
    flat = torch.full((3, 64, 64), 0.3)
    assert (round_trip(codec, flat) - flat).abs().max() < 0.02


def test_storage_round_trip(codec):
    from safetensors.torch import save

    again = from_bytes(save(*to_tensors(codec)))
    assert again.fingerprint == codec.fingerprint
    assert again.config == codec.config


def test_damaged_weights_are_refused():
    for data in (b"", b"\0" * 64, b"\x02\0\0\0\0\0\0\0{}"):
        with pytest.raises(CodecError):
            from_bytes(data)


def test_gradients_reach_every_weight():
    model = Walloc(WallocConfig(latent_channels=6, width=8, depth=1))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.1)
    x = picture(32, 32)[None]
    for noise in (None, torch.rand(1, 6, 4, 4) - 0.5):
        model.zero_grad()
        model(x, noise)[0].square().sum().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert p.grad.abs().sum() > 0, name
