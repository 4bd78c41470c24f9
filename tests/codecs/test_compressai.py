"""CompressAI's models under our coder: compressai itself is the oracle; weights are random, of realistic spread."""

import contextlib
import os
import subprocess
import sys
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import latentzip as lz
from latentzip.codecs.compressai import search
from latentzip.codecs.registry import load_codec
from latentzip.codecs.search import levels, run
from latentzip.codecs.search.descent import nearest
from latentzip.entropy.coder import Encoder

pytest.importorskip("compressai")
from compressai.registry import MODELS as ARCHITECTURES
from compressai.zoo.image import cfgs

MODELS = list(cfgs)
SMALL = ["bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "mbt2018"]
SIZES = {"bmshj2018-factorized": (16, 24), "bmshj2018-factorized-relu": (16, 24), "cheng2020-anchor": (12,),
         "cheng2020-attn": (12,)}  # fmt: skip


def picture(height, width, seed=0):
    """Smooth shapes plus noise, (3, H, W) in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 40
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(-3, 3, (3, 3))]
    noise = rng.normal(0, 0.1, (3, height, width))
    return torch.from_numpy(np.clip(0.5 + 0.3 * np.stack(waves) + noise, 0, 1)).float()


def rescale(module, outputs, deviation):
    factor = deviation / outputs.std()
    for p in module.parameters(recurse=False):
        p.mul_(factor)


def convolutions(part):
    return [m for m in part.modules() if isinstance(m, torch.nn.Conv2d)]


def untrained(name) -> Any:
    return ARCHITECTURES[name](*SIZES.get(name, (20, 24))).eval()


@torch.no_grad()
def network(name, seed=0):
    """A random model whose y has a deviation of about 3, z of 2, and whose scales are about right."""
    torch.manual_seed(seed)
    net = untrained(name)
    x = picture(128, 128)[None]
    rescale(net.g_a[-2 if name == "cheng2020-attn" else -1], net.g_a(x), 3)
    if name == "cheng2020-attn":
        rescale(convolutions(net.g_a[-1])[-1], net.g_a(x), 1)
    y = net.g_a(x)
    if not hasattr(net, "h_s"):
        return net
    rescale(net.h_a[-1], net.h_a(y.abs() if name == "bmshj2018-hyperprior" else y), 2)
    z = net.entropy_bottleneck(net.h_a(y))[0]
    head, inputs = net.h_s, z
    if hasattr(net, "context_prediction"):
        rescale(convolutions(net.h_s)[-1], net.h_s(z), 1)
        head, inputs = net.entropy_parameters, torch.cat([net.h_s(z), net.context_prediction(y.round())], 1)
    last = convolutions(head)[-1]
    rescale(last, head(inputs), 0.5)
    scales = last.out_channels // (1 if name == "bmshj2018-hyperprior" else 2)
    assert last.bias is not None
    last.bias[:scales] = 1.5 * y.std()  # wide enough that nothing is coded by escapes
    return net


@pytest.fixture(scope="module")
def nets():
    made = {}
    return lambda name: made.setdefault(name, network(name))


def codec_of(name, weights):
    return load_codec(f"compressai:{name}", weights=weights)


def round_trip(codec, x, **kwargs):
    c = codec.compress(x)
    return codec.decompress(c.params, c.chunks, x.shape[-2:], **kwargs)


@pytest.mark.parametrize("name", MODELS)
def test_same_reconstruction_as_compressai(name, nets):
    # in float64 on both sides, or a symbol on the border falls the other way and moves all that a context sees
    x = picture(128, 192, seed=1)
    codec = codec_of(name, nets(name)).double()
    theirs = untrained(name)
    theirs.load_state_dict(nets(name).state_dict())
    theirs.update(force=True)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            packed = theirs.double().compress(x[None].double())
            expected = theirs.decompress(packed["strings"], packed["shape"])["x_hat"][0]
    finally:
        torch.set_default_dtype(before)
    latent = codec.latent(x)[: codec.y_channels].float()
    assert 1 < latent.std() < 10
    assert (round_trip(codec, x) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", SMALL)
def test_float32_gives_the_same_picture(name, nets):
    x = picture(128, 128, seed=2)
    single, double = codec_of(name, nets(name)), codec_of(name, nets(name)).double()
    assert single.fingerprint == codec_of(name, nets(name)).fingerprint
    assert (round_trip(single, x) - round_trip(double, x)).abs().mean() < 1e-3


@pytest.mark.parametrize("name", ["bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean"])
def test_rate_is_that_of_compressai(name, nets):
    x = picture(768, 768, seed=3)
    net = nets(name)
    net.update(force=True)
    with torch.no_grad():
        likelihoods = net(x[None])["likelihoods"].values()
        strings = net.compress(x[None])["strings"]
    ideal = sum(-torch.log2(p.double()).sum().item() for p in likelihoods)
    bits = 8 * len(codec_of(name, net).compress(x).chunks[0])
    assert bits == pytest.approx(ideal, rel=1e-3)
    assert bits < 8 * sum(len(s[0]) for s in strings) * 1.001


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (65, 3), (37, 129)], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_any_size(name, size, nets):
    codec = codec_of(name, nets(name))
    x = picture(*size)
    latent = codec.latent(x)
    assert latent.dtype == torch.int16
    assert torch.equal(round_trip(codec, x, to="latent"), latent)
    y = round_trip(codec, x)
    assert y.shape == x.shape
    # the contract's own way, from the latent alone
    assert torch.allclose(codec.synthesis(latent[None], size)[0].clamp(0, 1), y, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_tiles_agree_with_the_whole(name, nets):
    codec = codec_of(name, nets(name)).double()
    x = picture(300, 420, seed=4)
    whole, latent = round_trip(codec, x), codec.latent(x)
    codec.tile = 12
    assert torch.equal(codec.latent(x), latent)
    assert (round_trip(codec, x) - whole).abs().max() < 1e-6


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_transforms(name, nets):
    codec, x = codec_of(name, nets(name)), picture(64, 64)
    exact = round_trip(codec, x)
    codec.g_a.bfloat16()
    codec.g_s.bfloat16()
    assert (round_trip(codec, x) - exact).abs().mean() < 0.01


def test_region_equals_the_part_of_the_whole(nets):
    codec = codec_of("mbt2018-mean", nets("mbt2018-mean"))
    codec.tile = 8
    x = picture(260, 390)
    whole, latent = round_trip(codec, x), round_trip(codec, x, to="latent")
    for top, left, bottom, right in [(0, 0, 1, 1), (100, 37, 180, 201), (259, 389, 260, 390), (0, 0, 260, 390)]:
        part = round_trip(codec, x, region=(top, left, bottom, right))
        assert torch.equal(part, whole[:, top:bottom, left:right])
        part = round_trip(codec, x, region=(top, left, bottom, right), to="latent")
        y0, x0, y1, x1 = top // 64 * 4, left // 64 * 4, -(-bottom // 64) * 4, -(-right // 64) * 4
        assert torch.equal(part, latent[:, y0:y1, x0:x1])
    with pytest.raises(lz.InputError, match="region"):
        round_trip(codec, x, region=(0, 0, 261, 1))


OTHER_SETTINGS = """
import sys, numpy, torch, latentzip as lz
torch.set_num_threads(2)
torch.backends.mkldnn.enabled = True
for name in sys.argv[2:]:
    codec = lz.load_codec("compressai:" + name, weights=f"{sys.argv[1]}/{name}.pth")
    blob = open(f"{sys.argv[1]}/{name}.ltz", "rb").read()
    codec.g_s.bfloat16()
    latent = lz.decode(blob, to="latent", codec=codec)
    with torch.autocast("cpu", torch.bfloat16):
        rough = lz.decode(blob, codec=codec)
    numpy.savez(f"{sys.argv[1]}/{name}.npz", latent=latent.numpy(), picture=rough)
"""


@pytest.mark.filterwarnings("ignore:TF32")
def test_streams_decode_alike_under_other_settings(nets, tmp_path):
    names, threads = ("bmshj2018-factorized", "mbt2018"), torch.get_num_threads()
    expected = {}
    torch.set_num_threads(1)
    try:
        with torch.backends.mkldnn.flags(enabled=False):
            for name in names:
                torch.save(nets(name).state_dict(), tmp_path / f"{name}.pth")
                codec = codec_of(name, nets(name))
                x = (picture(120, 150, seed=5).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
                blob = lz.encode(x, codec=codec)
                (tmp_path / f"{name}.ltz").write_bytes(blob)
                expected[name] = lz.decode(blob, codec=codec, to="latent").numpy(), lz.decode(blob, codec=codec)
    finally:
        torch.set_num_threads(threads)
    done = subprocess.run([sys.executable, "-c", OTHER_SETTINGS, str(tmp_path), *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in names:
        with np.load(tmp_path / f"{name}.npz") as z:
            latent, rough = z["latent"], z["picture"]
        assert np.array_equal(latent, expected[name][0])
        assert np.abs(rough.astype(int) - expected[name][1]).mean() < 2  # bfloat16 transforms: near, not equal


def old_names(state):
    """Keys as CompressAI wrote them before 1.2.5, and as DataParallel does."""
    for key, value in state.items():
        for new, old in (("matrices.", "_matrix"), ("biases.", "_bias"), ("factors.", "_factor")):
            key = key.replace(f"entropy_bottleneck.{new}", f"entropy_bottleneck.{old}")
        yield f"module.{key}", value


def test_every_way_of_saving_is_one_codec(nets, tmp_path):
    net = network("mbt2018-mean")
    state = OrderedDict(net.state_dict())
    expected = codec_of("mbt2018-mean", net).fingerprint
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "checkpoint.pth.tar")
    torch.save(OrderedDict(old_names(state)), tmp_path / "old.pth")
    save_file({k: v.clone().contiguous() for k, v in state.items()}, tmp_path / "weights.safetensors")
    bare = {k: v for k, v in state.items() if "_cdf" not in k and "_offset" not in k and "scale_table" not in k}
    net.update(force=True)
    odd = {**net.state_dict(), "gaussian_conditional._quantized_cdf": torch.zeros(3, 5, dtype=torch.int32)}
    for weights in (
        state,
        bare,
        net,
        odd,
        *(tmp_path / n for n in ("checkpoint.pth.tar", "old.pth", "weights.safetensors")),
    ):
        assert codec_of("mbt2018-mean", weights).fingerprint == expected
    other = dict(state)
    other["g_s.0.bias"] = state["g_s.0.bias"] + 1
    assert codec_of("mbt2018-mean", other).fingerprint != expected


class Attack:
    def __reduce__(self):
        return (os.system, ("touch /tmp/should-not-exist",))


@pytest.mark.parametrize(
    ("name", "weights", "quality", "match"),
    [
        ("mbt2018-mean", None, None, "pretrained=True"),
        ("mbt2018-maen", {}, None, "known: bmshj2018-factorized"),
        ("mbt2018-mean", {}, None, "no state dict"),
        ("mbt2018-mean", {"a": 1}, None, "no state dict"),
        ("mbt2018-mean", {"a": torch.zeros(1)}, None, "lack 'g_a.0.weight'"),
        ("mbt2018-mean", "bmshj2018-hyperprior", None, "do not fit mbt2018-mean"),
        ("bmshj2018-hyperprior", "mbt2018", None, "do not fit"),
        ("cheng2020-anchor", "mbt2018", None, "lack 'g_a.0.conv1.weight'"),
        ("mbt2018-mean", "mbt2018-mean", 3, r"\(128, 192\) channels, these weights have \(20, 24\)"),
        ("mbt2018-mean", "mbt2018-mean", 9, "1 to 8"),
    ],
)
def test_weights_that_do_not_fit(name, weights, quality, match, nets):
    weights = nets(weights).state_dict() if isinstance(weights, str) else weights
    with pytest.raises(lz.InputError, match=match):
        load_codec(f"compressai:{name}", weights=weights, quality=quality)


def test_files_that_are_no_weights(tmp_path):
    torch.save({"state_dict": Attack()}, tmp_path / "attack.pth")
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "text.safetensors").write_text("not weights")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(lz.InputError, match=path.name):
            codec_of("mbt2018", path)
    with pytest.raises(OSError, match="missing"):
        codec_of("mbt2018", tmp_path / "missing.pth")


def test_damaged_weights(nets):
    state = dict(nets("mbt2018-mean").state_dict())
    state["h_s.0.weight"] = torch.full_like(state["h_s.0.weight"], float("nan"))
    with pytest.raises(lz.InputError, match="NaN"):
        codec_of("mbt2018-mean", state).compress(picture(64, 64))


def test_decoding_without_the_weights_names_them(nets):
    codec = codec_of("mbt2018-mean", nets("mbt2018-mean"))
    blob = lz.encode(picture(50, 60), codec=codec)
    info = lz.inspect(blob)
    assert (info.codec, info.fingerprint) == ("compressai:mbt2018-mean", codec.fingerprint.hex())
    with pytest.raises(lz.UnsupportedError, match=rf"mbt2018-mean with weights {info.fingerprint}.*codec=codec"):
        lz.decode(blob)
    with pytest.raises(lz.UnsupportedError, match="needs compressai:mbt2018-mean"):
        lz.decode(blob, codec=codec_of("mbt2018-mean", network("mbt2018-mean", seed=1)))
    assert lz.decode(blob, codec=codec).shape == (3, 50, 60)
    with pytest.raises(lz.InputError, match="brings its own weights"):
        load_codec("walloc-rgb-16x", weights=blob)


def test_batches_of_tensors(nets):
    codec = codec_of("bmshj2018-hyperprior", nets("bmshj2018-hyperprior"))
    x = torch.stack([picture(70, 90, seed=s) for s in (1, 2)])
    decoded = codec.decode(codec.encode(x))
    assert torch.equal(decoded[1], round_trip(codec, x[1]))
    assert torch.equal(codec.analysis(x)[0], codec.latent(x[0]))


@pytest.mark.parametrize("name", SMALL)
def test_damaged_chunks(name, nets):
    codec = codec_of(name, nets(name))
    c = codec.compress(picture(80, 80))
    latent = codec.decompress(b"", c.chunks, (80, 80), to="latent")
    rng = np.random.default_rng(0)
    damaged = [c.chunks[0][:-5], c.chunks[0][: len(c.chunks[0]) // 2], c.chunks[0][:1], b""]
    for _ in range(8):
        flipped = bytearray(c.chunks[0])
        flipped[rng.integers(len(flipped))] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    for chunk in damaged:  # the container's checksum comes first; here nothing worse than wrong latents may happen
        with contextlib.suppress(lz.FormatError):
            assert not torch.equal(codec.decompress(b"", [chunk], (80, 80), to="latent"), latent)
    for params, chunks in ((b"\1", c.chunks), (b"", c.chunks * 2), (b"", [])):
        with pytest.raises(lz.FormatError, match="parameters"):
            codec.decompress(params, chunks, (80, 80))


def test_arguments_are_refused(nets):
    codec = codec_of("mbt2018-mean", nets("mbt2018-mean"))
    x = picture(20, 20)
    for match, call in (
        ("fixed rate", lambda: codec.compress(x, quality=50)),
        ("fast coding", lambda: codec.compress(x, coding="fast")),
        ("all of them", lambda: round_trip(codec, x, channels=3)),
        ("float64", lambda: codec_of("mbt2018-mean", nets("mbt2018-mean")).float().compress(x)),
        ("shapes?", lambda: codec.compress(x[:2])),
    ):
        with pytest.raises(lz.InputError, match=match):
            call()


def test_importing_and_listing_need_no_compressai():
    code = (
        "import sys, latentzip as lz; lz.list_codecs(); lz.load_codec; "
        "assert not {'torch', 'compressai'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(lz.InputError, match="weights"):
        lz.encode(np.zeros((8, 8, 3), np.uint8), codec="compressai:mbt2018")


SEARCHED = ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean")


@pytest.fixture(scope="module")
def trained():
    """Models whose decoder undoes the encoder, more or less, as a search needs."""
    made = {}

    def get(name):
        if name not in made:
            net = made[name] = network(name)
            x = torch.stack([picture(64, 64, seed=s) for s in range(4)])
            optimiser = torch.optim.Adam(net.parameters(), 2e-3)
            for _ in range(80):
                out = net.train()(x)
                bits = sum(-torch.log2(p).sum() for p in out["likelihoods"].values()) / x[:, 0].numel()
                loss = 0.02 * 255**2 * (out["x_hat"] - x).square().mean() + bits
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            net.eval()
        return made[name]

    return get


def served(codec, x, **options):
    """Bits of a stream, and squared error of 8-bit samples as a search counts it, decoded for real."""
    packed = codec.compress(x, **options)
    error = codec.decompress(packed.params, packed.chunks, x.shape[-2:]) - x
    return 8 * len(packed.chunks[0]), float(error.square().sum()) * 255**2 / 3


@pytest.mark.parametrize("effort", [3, 6])
@pytest.mark.parametrize("name", SEARCHED)
def test_effort_serves_better(name, effort, trained, monkeypatch):
    if effort == 6:  # annealed rounding, in a tenth of the time
        monkeypatch.setattr(levels, "LEVELS", (*levels.LEVELS[:6], levels.Level(12, 3)))
        monkeypatch.setattr(run, "LEVELS", levels.LEVELS)
    codec, x = codec_of(name, trained(name)), picture(100, 120, seed=6)
    with torch.no_grad():
        trade = codec.search_field(x, 0).trade
    costs = [bits + trade * error for bits, error in (served(codec, x, effort=e) for e in (0, effort))]
    assert costs[1] <= (costs[0] if effort == 3 else 0.95 * costs[0])


@pytest.mark.parametrize("name", SEARCHED)
def test_pieces_see_their_surroundings(name, trained, monkeypatch):
    """What a piece says of itself is what the whole picture costs and looks like, less what does not change."""
    monkeypatch.setattr(search, "PART", 16)
    codec, x = codec_of(name, trained(name)), picture(256, 512, seed=7)
    with torch.no_grad():
        field = codec.search_field(x, 0)
        first = field.latent.clone()
        for tile in field.tiles:
            piece = field.piece(tile)
            state = piece.settle(piece.target, nearest)
            y = codec.synthesis(field.latent[None], (256, 512))[0]
            top, left, bottom, right = piece.box
            seen = piece.decode(state.values)[0, :, : bottom - top, : right - left]
            rows, columns = (slice(f.start * 16, f.stop * 16) for f in piece.free)
            assert torch.allclose(seen[:, rows, columns], y[:, top:bottom, left:right][:, rows, columns], atol=1e-4)
            field.accept(tile, piece, state)
            assert torch.equal(field.latent, first)
    plain, found = served(codec, x), served(codec, x, effort=3)
    assert found[0] + field.trade * found[1] <= plain[0] + field.trade * plain[1]


def test_what_moves_in_the_hyper_latent_is_paid_for(nets, monkeypatch):
    monkeypatch.setattr(search, "PART", 16)
    codec, x = codec_of("mbt2018-mean", nets("mbt2018-mean")), picture(256, 512, seed=7)
    with torch.no_grad():
        field = codec.search_field(x, 0)
        piece: Any = field.piece(field.tiles[0])
        before = piece.settle(piece.target, nearest)
        whole = served_latent(codec, field.latent)
        moved = piece.variables()
        moved[1] = moved[1].round()
        moved[1][..., -1] += 1  # next to the other piece
        piece.adopt(moved)
        after = piece.settle(piece.target, nearest)
        field.accept(field.tiles[0], piece, after)
    assert after.bits - before.bits == pytest.approx(served_latent(codec, field.latent) - whole, abs=40)


def served_latent(codec, latent):
    encoder = Encoder(1)
    codec.program(encoder, latent.numpy().astype(np.int32), latent.shape)
    return 8 * len(encoder.finish())


@pytest.mark.parametrize("name", ["mbt2018", "cheng2020-anchor"])
def test_serial_contexts_have_no_effort(name, nets):
    codec, x = codec_of(name, nets(name)), picture(64, 64)
    for call in (lambda: codec.compress(x, effort=3), lambda: lz.encode(x, codec=codec, effort=3)):
        with pytest.raises(lz.InputError, match=f"{name} has no effort: its context .*; mbt2018-mean, .* have one"):
            call()
    assert len(lz.encode(x, codec=codec, effort=None)) > 0


def test_effort_through_the_face(nets):
    codec, x = codec_of("mbt2018-mean", nets("mbt2018-mean")), picture(64, 80)
    assert lz.encode(x, codec=codec, effort=0) == lz.encode(x, codec=codec)
    weight = np.ones((64, 80))
    blob = lz.encode(x, codec=codec, effort=1, weight=weight)
    assert lz.decode(blob, codec=codec).shape == (3, 64, 80)
    with pytest.raises(lz.InputError, match=r"\(8, 8\), the picture \(64, 80\)"):
        lz.encode(x, codec=codec, effort=1, weight=np.ones((8, 8)))
