"""Bottlenecks: what the training pass promises, streams of every size, and what a frozen one keeps to."""

import subprocess
import sys
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

import latentzip as lz
from latentzip.codecs.bottleneck.codec import tail

PRIORS = ["factorized", "hyperprior"]


def make(prior: Any = "hyperprior", seed=0, **sizes):
    """A small bottleneck whose latents are not all zero."""
    torch.manual_seed(seed)
    config = lz.BottleneckConfig(outputs=6, latent=5, prior=prior, encoder_width=16, decoder_width=8, **sizes)
    bottleneck: Any = lz.EntropicBottleneck(config, "little").eval()
    with torch.no_grad():
        bottleneck.log_gain.values += 2
        if bottleneck.means is not None:
            nn.init.normal_(bottleneck.means.layers[-1].weight, std=0.2)
    return bottleneck


@pytest.fixture(params=PRIORS)
def trained(request):
    return make(request.param)


def picture(h=40, w=56, seed=1):
    y, x = torch.meshgrid(torch.arange(h) / 9, torch.arange(w) / 7, indexing="ij")
    waves = torch.stack([torch.sin(x + y), torch.cos(x * y / 4), torch.sin(2 * x - y)])
    noise = torch.randn(3, h, w, generator=torch.Generator().manual_seed(seed))
    return (0.5 + 0.3 * waves + 0.1 * noise).clamp(0, 1)[None]


def test_training_pass_gives_features_and_rate_with_gradients(trained):
    out = trained(torch.cat([picture(), picture(seed=2)]), torch.tensor([10.0, 90.0]))
    assert out["features"].shape == (2, 6, 10, 14)
    assert out["bits"].shape == (2,)
    assert out["bits"][1] > 1.05 * out["bits"][0] > 0  # finer steps cost more
    (out["bits"].sum() + out["features"].square().sum()).backward()
    assert all(p.grad is not None for p in trained.parameters())
    unused = [p for name, p in trained.named_parameters() if name.startswith("priors.") and not p.grad.any()]
    assert len(unused) == 6  # those of other qualities


def test_hard_pass_trains_the_decoder_alone(trained):
    out = trained(picture(), 50, hard=True)
    out["features"].sum().backward()
    with_gradient = {name.split(".")[0] for name, p in trained.named_parameters() if p.grad is not None}
    assert with_gradient == {"decoder"}
    assert not out["bits"].requires_grad


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(("h", "w"), [(1, 1), (31, 33), (64, 32), (200, 9)])
@pytest.mark.parametrize(("down", "up"), [(8, 2), (4, 4), (8, 1), (1, 1)])
def test_streams_give_what_the_forward_pass_gives(prior, h, w, down, up):
    bottleneck = make(prior, down=down, up=up).freeze()
    x = picture(h, w)
    (stream,) = bottleneck.encode(x, quality=70)
    (y,) = bottleneck.decode([stream])
    assert y.shape == (6, -(-h * up // down), -(-w * up // down))
    torch.testing.assert_close(y, bottleneck(x, 70)["features"][0].detach(), rtol=1e-4, atol=1e-5)
    assert lz.encode(x[0], codec=bottleneck, quality=70) == lz.encode(x, codec=bottleneck, quality=70)[0] == stream


def test_freezing_changes_no_feature_and_little_rate(trained):
    x = picture(128, 128)
    trained.quantised(True)
    before = trained(x, 60, hard=True)
    trained.freeze()
    assert "bits" not in trained(x, 60)
    torch.testing.assert_close(trained(x, 60)["features"], before["features"])
    info = lz.inspect(trained.encode(x, 60)[0])
    assert (info.codec, info.quality, info.shape) == ("little", 60, (6, 32, 32))
    payload = 8 * len(trained.encode(x, 60)[0]) - 8 * 100  # about what the container takes
    assert payload < 1.05 * float(before["bits"]) + 400


def test_quality_is_rate(trained):
    trained.freeze()
    sizes = [len(trained.encode(picture(96, 96), q)[0]) for q in (1, 40, 70, 100)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 1.1 * sizes[0]


def test_large_inputs_are_chunks(trained):
    trained.freeze()
    trained.chunk = 16
    x = picture(200, 136)
    (stream,) = trained.encode(x, 50)
    assert lz.inspect(stream).chunks > 1
    trained.chunk = 64  # a decoder takes the stream's word for it
    torch.testing.assert_close(
        trained.decode([stream])[0], trained(x, 50)["features"][0].detach(), rtol=1e-4, atol=1e-5
    )


def test_rounding_grows_no_tables_and_any_latent_can_be_coded(trained):
    trained.freeze()
    with torch.no_grad():
        trained.log_gain.values += 4  # far beyond what the tables were made for
    x = picture(64, 64)
    torch.testing.assert_close(
        trained.decode(trained.encode(x, 100))[0], trained(x, 100)["features"][0].detach(), rtol=1e-4, atol=1e-5
    )


def test_weights_file(trained, tmp_path):
    with pytest.raises(lz.InputError, match="freeze"):
        trained.save(tmp_path / "b.safetensors")
    trained.freeze().save(tmp_path / "b.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["b.safetensors"]
    loaded = lz.load_codec(tmp_path / "b.safetensors")
    assert loaded.fingerprint == trained.fingerprint
    stream = trained.encode(picture(), 30)[0]
    assert loaded.encode(picture(), 30)[0] == stream
    assert torch.equal(lz.decode(stream, codec=loaded), trained.decode([stream])[0])
    latent = lz.decode(stream, "latent", codec=loaded)
    assert torch.equal(latent, trained.latent(picture(), 30)[0])
    assert isinstance(lz.decode(stream, "numpy", codec=loaded), np.ndarray)


def test_networks_of_ones_own(tmp_path):
    def networks():
        return nn.Conv2d(4, 5, 4, stride=4), nn.Sequential(nn.Conv2d(5, 6, 1), nn.Upsample(scale_factor=2))

    config = lz.BottleneckConfig(inputs=4, outputs=6, latent=5, down=4, up=2, prior="factorized")
    own = lz.EntropicBottleneck(config, "own", *networks()).freeze()
    own.save(tmp_path / "own.safetensors")
    x = torch.randn(1, 4, 20, 28)
    assert own.decode(own.encode(x))[0].shape == (6, 10, 14)
    with pytest.raises(lz.FormatError, match="hand them to load"):
        lz.EntropicBottleneck.load(tmp_path / "own.safetensors")
    again = lz.EntropicBottleneck.load(tmp_path / "own.safetensors", *networks())
    assert torch.equal(again.decode(own.encode(x))[0], own.decode(own.encode(x))[0])


def test_several_decoders_read_one_stream(trained):
    stream = trained.freeze().encode(picture())[0]
    first = trained.decode([stream])[0]
    assert {name.split(".")[0] for name, p in trained.named_parameters() if p.requires_grad} == {"decoder"}
    trained._fingerprint = None  # as in a process that loads the tuned weights
    with torch.no_grad():
        trained.decoder[-1].weight *= 2
    assert not torch.allclose(trained.decode([stream])[0], first)


def test_streams_of_another_bottleneck_are_refused(trained):
    stream = trained.freeze().encode(picture())[0]
    other = make(trained.config.prior, seed=5).freeze()
    for attempt in (lambda: other.decode([stream]), lambda: lz.decode(stream, codec=other)):
        with pytest.raises(lz.UnsupportedError, match=r"load_codec\(PATH\)"):
            attempt()
    with pytest.raises(lz.UnsupportedError, match="a bottleneck's stream needs its weights"):
        lz.decode(stream)
    with pytest.raises(lz.InputError, match="whole features"):
        lz.decode(stream, region=(0, 1), codec=trained)


def test_damage_gives_one_clear_error(trained):
    stream = trained.freeze().encode(picture(), 80)[0]
    for at in range(0, len(stream), 7):
        bad = bytearray(stream)
        bad[at] ^= 0x55
        with pytest.raises(lz.CodecError):
            trained.decode([bytes(bad)])
        with pytest.raises(lz.CodecError):
            trained.decode([stream[:at]])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda b: b.encode(torch.rand(3, 8, 8)), r"\(B, 3, H, W\)"),
        (lambda b: b.encode(torch.rand(1, 2, 8, 8)), r"\(B, 3, H, W\)"),
        (lambda b: b.encode(torch.full((1, 3, 8, 8), float("nan"))), "NaN"),
        (lambda b: b.encode(torch.rand(1, 3, 8, 8), quality=0), "1 .*to 100"),
        (lambda b: lz.EntropicBottleneck(lz.BottleneckConfig(down=6)), "powers of two"),
        (lambda b: lz.EntropicBottleneck(lz.BottleneckConfig(down=2, up=4)), "up <= down"),
        (lambda b: lz.EntropicBottleneck(lz.BottleneckConfig(hyper=12)), "multiple of 16"),
        (lambda b: lz.EntropicBottleneck(lz.BottleneckConfig(prior=cast(Any, "none"))), "'factorized' or"),
        (lambda b: make().encode(torch.rand(1, 3, 8, 8)), "in training"),
        (lambda b: tail(b, ["nothing"]), "no layer 'nothing'"),
        (lambda b: lz.encode("photo.png", codec=b), "not str"),
        (lambda b: lz.encode(torch.rand(3, 8, 8), codec=b, nmse=0.1), "takes a quality"),
    ],
)
def test_wrong_use_is_explained(call, text):
    frozen = make("factorized").freeze()
    with pytest.raises(lz.InputError, match=text):
        call(frozen)


def test_tail_takes_features():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    x = torch.rand(2, 3, 8, 8)
    whole = net(x)
    rest = tail(net, ["0", "1"])
    torch.testing.assert_close(rest(net[:2](x)), whole)
    assert isinstance(net[0], nn.Conv2d)  # the original is as it was


def test_another_process_and_more_threads_read_the_same_symbols(tmp_path):
    bottleneck = make().freeze()
    bottleneck.save(tmp_path / "b.safetensors")
    stream = bottleneck.encode(picture(160, 160), 90)[0]
    (tmp_path / "x.ltz").write_bytes(stream)
    program = (
        "import torch, sys, latentzip as lz\n"
        "torch.set_num_threads(2); torch.backends.mkldnn.enabled = False\n"
        "codec = lz.load_codec(sys.argv[1])\n"
        "torch.save(lz.decode(sys.argv[2], 'latent', codec=codec), sys.argv[3])"
    )
    paths = [str(tmp_path / name) for name in ("b.safetensors", "x.ltz", "out.pt")]
    subprocess.run([sys.executable, "-c", program, *paths], check=True)
    latent = torch.load(tmp_path / "out.pt", weights_only=True)
    assert torch.equal(latent, bottleneck.latent(picture(160, 160), 90)[0])
