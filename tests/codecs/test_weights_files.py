"""Weights and profiles that lie or change: refused in words, named anew, never another codec under an old name."""

import copy
import gzip
import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

import latentzip as lz
from latentzip import pretrained
from latentzip.codecs import registry, storage
from latentzip.codecs.walloc import codec as walloc
from latentzip.entropy import opening

CONFIG = lz.BottleneckConfig(outputs=8, latent=4, encoder_width=8, decoder_width=8)


def parts(data):
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(head, body=b""):
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.fixture(scope="module")
def bottleneck():
    return lz.EntropicBottleneck(CONFIG).eval().freeze()


@pytest.mark.parametrize("fields", [{"latent": 1 << 18}, {"inputs": 1 << 12}, {"inputs": 1.5}, {"other": 1}])
def test_sizes_are_compared_before_memory_is_taken(bottleneck, tmp_path, fields):
    head, body = parts(bottleneck.to_bytes())
    config = json.loads(head["__metadata__"]["config"]) | fields
    head["__metadata__"]["config"] = json.dumps(config)
    (tmp_path / "w.safetensors").write_bytes(joined(head, body))
    with pytest.raises(lz.FormatError):
        lz.load_codec(tmp_path / "w.safetensors")


@pytest.mark.parametrize("head", [b"[" * 100_000, {"__metadata__": []}, b"{}", b"\xff" * 40])
def test_headers_that_are_none(tmp_path, head):
    path = tmp_path / "w.safetensors"
    path.write_bytes(joined(head))
    for read in (lz.load_codec, lz.FeatureCodec.load, lz.KVCacheCodec.load, lz.EntropicBottleneck.load):
        with pytest.raises(lz.FormatError):
            read(path)


def index_of(change):
    from importlib.resources import files

    data = json.loads((files("latentzip.pretrained") / "index.json").read_bytes())
    change(data["codecs"])
    return json.dumps(data).encode()


@pytest.mark.parametrize("change", [
    lambda c: c[0].update(file="../../etc/passwd"), lambda c: c[0].update(file=None), lambda c: c[0].update(sha256="0"),
    lambda c: c[0].update(loader="os:system"), lambda c: c[0].update(modality="video"), lambda c: c[0].pop("name"),
    lambda c: c[0].update(current=1), lambda c: c[0].update(current=False), lambda c: c.append(c[0]),
    lambda c: c[0].update(fingerprint="zz"), lambda c: c[0].update(more=1), lambda c: c.append(7),
    lambda c: c[0].update(results=[]), lambda c: c[0].update(version="1" * 99),
], ids=range(14))  # fmt: skip
def test_an_index_of_weights_that_lies(change):
    assert len(pretrained.read_index(index_of(lambda c: None))) == len(pretrained.index()) > 5
    with pytest.raises(lz.FormatError, match=r"index\.json"):
        pretrained.read_index(index_of(change))


def test_a_damaged_index_of_weights():
    whole = index_of(lambda c: None)
    rng = np.random.default_rng(0)
    for data in (b"", b"[]", b"{}", whole[:-1], b"[" * 100_000, b"\xff" + whole):
        with pytest.raises(lz.FormatError):
            pretrained.read_index(data)
    for _ in range(400):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            damaged[at] = rng.integers(256)
        with suppress(lz.FormatError):
            pretrained.read_index(bytes(damaged))


@pytest.fixture(scope="module")
def tuned():
    """Tensors and metadata of weights a little off a release, and the release."""
    entry = pretrained.release("walloc-rgb-16x", "1")
    blob = entry.read()
    tensors, rng = load(blob), np.random.default_rng(0)
    for key, value in tensors.items():
        if key.startswith("model.") and value.dtype == torch.int8:
            tensors[key] = value + torch.from_numpy(rng.integers(-3, 4, value.shape).astype(np.int8))
    return tensors, opening.metadata(blob), entry


def test_differences_from_a_release_are_the_weights(tuned):
    tensors, meta, entry = dict(tuned[0]), dict(tuned[1]), tuned[2]
    whole = save(tensors, meta)
    assert storage.differ(tensors, meta, entry)
    short = save(tensors, meta)
    assert len(gzip.compress(short)) < 0.6 * len(gzip.compress(whole))
    expected, found = walloc.from_bytes(whole), walloc.from_bytes(short)
    assert found.fingerprint == expected.fingerprint
    again, meta = load(short), opening.metadata(short)
    assert not storage.differ(again, meta, entry)  # what holds differences is no whole


def test_differences_that_do_not_fit_are_refused(tuned):
    tensors, meta, entry = dict(tuned[0]), dict(tuned[1]), tuned[2]
    storage.differ(tensors, meta, entry)
    key = next(k for k in tensors if k.startswith("difference."))
    for name, value in (
        (key, tensors[key][:1]),
        (key, tensors[key].short()),
        ("difference.model.nothing", tensors[key]),
    ):
        with pytest.raises(lz.FormatError, match="no difference from the release"):
            walloc.from_bytes(save({**tensors, name: value.clone()}, meta))
    for named in ("walloc-rgb-16x:" + "00" * 8, "nobody:" + entry.fingerprint):
        with pytest.raises(lz.FormatError, match="another release"):
            walloc.from_bytes(save(tensors, {**meta, "differs": named}))


def test_nan_in_weights_is_refused(bottleneck):
    head, body = parts(bottleneck.to_bytes())
    begin, _ = next(v for k, v in head.items() if k.endswith("weight") and v["dtype"] == "F32")["data_offsets"]
    body = body[:begin] + np.float32("nan").tobytes() + body[begin + 4 :]
    from latentzip.codecs.bottleneck.codec import from_bytes

    with pytest.raises(lz.FormatError, match="NaN"):
        from_bytes(joined(head, body))


def test_a_basis_of_zeros_is_refused(tmp_path):
    lz.FeatureCodec.fit([torch.randn(100, 6)]).save(tmp_path / "p")
    head, body = parts((tmp_path / "p").read_bytes())
    a, b = head["basis"]["data_offsets"]
    (tmp_path / "p").write_bytes(joined(head, body[:a] + bytes(b - a) + body[b:]))
    with pytest.raises(lz.FormatError, match="zeros"):
        lz.FeatureCodec.load(tmp_path / "p")


def test_changed_weights_name_their_streams_anew():
    codec = copy.deepcopy(lz.load_codec("walloc-rgb-linear"))
    stock = codec.fingerprint
    with torch.no_grad():
        for p in codec.parameters():
            p.mul_(1.05)
    blob = lz.encode(np.zeros((16, 16, 3), np.uint8), codec=codec, quality=50)
    assert lz.inspect(blob).fingerprint != stock.hex()
    assert lz.decode(blob, codec=codec).shape == (16, 16, 3)
    with pytest.raises(lz.UnsupportedError):
        lz.decode(blob)
    assert lz.load_codec("walloc-rgb-linear").fingerprint == stock


def test_the_state_of_a_frozen_bottleneck_is_the_whole_codec(bottleneck):
    torch.manual_seed(1)
    other = lz.EntropicBottleneck(CONFIG)
    assert other.priors is not None
    with torch.no_grad():
        for p in other.priors.parameters():
            p.add_(torch.randn_like(p))
    other.eval().freeze()
    assert other.fingerprint != bottleneck.fingerprint
    other.load_state_dict(bottleneck.state_dict())
    assert other.fingerprint == bottleneck.fingerprint
    without = {k: v for k, v in bottleneck.state_dict().items() if not k.startswith("coding.")}
    with pytest.raises(RuntimeError, match="coding"):
        other.load_state_dict(without)


def test_loading_draws_no_random_numbers():
    """Who has seeded torch gets the same numbers, whether or not a codec was loaded in between."""
    data = next(entry for entry in pretrained.index() if entry.name == "hyperprior-fast" and entry.current).read()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    registry.codec_of_weights(data, "weights")
    assert torch.equal(torch.rand(4), expected)


def test_every_release_loads_by_its_path(tmp_path):
    """Also those of before families had names."""
    entry = pretrained.find("walloc-rgb-linear")
    path = tmp_path / "copied.safetensors"
    path.write_bytes(entry.read())
    assert "family" not in opening.metadata(entry.read())
    assert lz.load_codec(path).fingerprint.hex() == entry.fingerprint
    with pytest.raises(lz.InputError, match=r"weights are named by a \.safetensors file"):
        lz.load_codec(tmp_path / "copied.safetensors.gz")
