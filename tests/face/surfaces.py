"""Every public function that takes an array or a tensor, and what it is called with (`test_every_layout`)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import latentzip as lz
from latentzip import entropy as e
from latentzip.codecs.search.measures import weight_map
from latentzip.data import Dequantize, EmbeddingStore
from latentzip.evaluation.metrics import pictures as of_pictures
from latentzip.evaluation.metrics import sound as of_sound
from latentzip.evaluation.metrics import tensors as of_tensors
from latentzip.evaluation.signals import load
from latentzip.numcodecs import Latentzip

RNG = np.random.default_rng(3)
Y, X = np.mgrid[:8, :16]
PICTURE = np.stack([40 + 6 * X, 60 + 9 * Y, 20 + 4 * (X + Y)], -1).astype(np.uint8)
UNIT = (np.moveaxis(PICTURE, -1, 0) / 255).astype(np.float32)
WAVE = np.stack([0.4 * np.sin(np.arange(700) / 9), 0.3 * np.cos(np.arange(700) / 7)], 1).astype(np.float32)
ROWS = RNG.normal(size=(24, 8)).astype(np.float32)
CACHE = RNG.normal(size=(1, 2, 40, 4)).astype(np.float32)
COUNTS = RNG.integers(-9, 9, (6, 10)).astype(np.int32)
INDEX = RNG.integers(0, 64, COUNTS.shape).astype(np.uint8)
SHARES = np.full((*COUNTS.shape, 2), 128, np.int32)
ZEROS = np.zeros_like(SHARES)


class Surface(NamedTuple):
    """A public function of one array or tensor.

    Attributes:
        run: what is called; results are compared between layouts.
        array, tensor: what it is called with; None where it takes no such thing.
        takes: other dtypes in which it takes these numbers.
        same: whether in those it gives the same result: what else it gives is compared by `back`.
        back: of a result, something near the numbers that went in.
        any_shape: whether scalars, empty arrays and such are taken.
        none: whether None stands for nothing given.
        errors: what is raised beside `CodecError`.
    """

    run: Callable[[Any], Any]
    array: np.ndarray | None
    tensor: np.ndarray | None
    takes: str = ""
    same: bool = True
    back: Callable[[Any], Any] | None = None
    any_shape: bool = False
    none: bool = False
    errors: tuple[type[Exception], ...] = ()


def first(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, -1, -3))


def decoded(blob: Any) -> np.ndarray:
    y = lz.decode(blob)
    y = y[0] if isinstance(y, tuple) else y
    return (y.float() if isinstance(y, torch.Tensor) else torch.from_numpy(np.asarray(y, np.float64))).numpy()


def chunk(x: Any, model: Any, encoder: type = e.Encoder) -> bytes:
    coder = encoder()
    coder.code(x, model)
    return coder.finish()


def read(data: bytes, model: Any) -> np.ndarray:
    return np.asarray(e.Decoder(data).code(None, model))


def packed(c: Any) -> Any:
    return c.params, list(c.chunks)


def nearest(store: EmbeddingStore, x: Any) -> Any:
    scores, numbers = store.search(x, 3)
    return np.round(scores, 4) + 0.0, numbers  # sums of a matrix product end as memory lies


def stored(x: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        EmbeddingStore.write(path := Path(folder) / "s.ltz", x, nmse=0.05, group=16)
        return path.read_bytes()


FLOATS = "float16 bfloat16 float32"
WIDE = FLOATS + " float64 longdouble"
INTEGERS = "int8 int16 int32 int64"
LINEAR = lz.load_codec("walloc-rgb-linear")
AUDIO = lz.load_codec("audio")
BANK = e.frozen_bank()


def surfaces() -> dict[str, Surface]:
    t = torch.from_numpy
    cache = [(t(CACHE), t(CACHE))]
    kv, profile = lz.KVCacheCodec.fit([cache], nmse=0.05), lz.FeatureCodec.fit([t(ROWS)], nmse=0.05)
    config = lz.BottleneckConfig(outputs=8, latent=4, encoder_width=8, decoder_width=8)
    bottleneck = lz.EntropicBottleneck(config).eval().freeze()
    rgba = np.concatenate([PICTURE, PICTURE[..., :1]], -1).astype(np.uint16) * 200
    scan, batch = PICTURE.astype(np.float32) * 9 - 3, np.stack([PICTURE, PICTURE[::-1]])
    latent = RNG.integers(-5, 5, (1, LINEAR.latent_channels, 2, 3)).astype(np.int8)  # type: ignore[attr-defined]
    maps, deviations = RNG.normal(size=(3, 8, 8)).astype(np.float32), (RNG.random(30) + 0.1).astype(np.float32)
    pairs = (RNG.random(SHARES.shape) + 0.1).astype(np.float32)
    store = EmbeddingStore.write(Path(tempfile.mkdtemp()) / "s.ltz", ROWS, nmse=0.05)
    dequantize, features = Dequantize("walloc-rgb-linear"), Latentzip(codec="features", nmse=0.05)
    return {
        "encode hyperprior": Surface(lambda x: lz.encode(x, "hyperprior-fast"), PICTURE, first(PICTURE)),
        "encode lossless": Surface(
            lambda x: lz.encode(x, "lossless"), PICTURE, first(PICTURE), "uint16", False, decoded
        ),
        "encode with alpha": Surface(lambda x: lz.encode(x, "walloc-rgb-linear"), rgba, first(rgba)),
        "encode floats": Surface(
            lambda x: lz.encode(x, "walloc-rgb-linear"), np.moveaxis(UNIT, 0, -1), UNIT, WIDE, False,
            lambda b: decoded(b) * 0.1,
        ),
        "encode in a range": Surface(
            lambda x: lz.encode(x, "walloc-rgb-linear", value_range="auto"), scan, first(scan), WIDE, False,
            lambda b: decoded(b) * 1e-3,
        ),
        "encode a batch": Surface(lambda x: lz.encode(x, "walloc-rgb-linear"), batch, first(batch)),
        "encode sound": Surface(
            lambda x: lz.encode((x, 16000), "audio"), WAVE, WAVE.T.copy(), WIDE, False, decoded, True
        ),
        "encode 16-bit sound": Surface(
            lambda x: lz.encode((x, 16000), "audio"), (WAVE * 30000).astype(np.int16), None, any_shape=True
        ),
        "codec.encode": Surface(LINEAR.encode, None, UNIT[None], "float16 bfloat16 float64", any_shape=True),
        "codec.compress": Surface(lambda x: packed(LINEAR.compress(x)), UNIT, UNIT, "float16 bfloat16 float64"),
        "codec.latent": Surface(LINEAR.latent, UNIT, UNIT, "float16 bfloat16 float64"),
        "codec.dequantize": Surface(LINEAR.dequantize, latent, latent, INTEGERS + " " + WIDE, any_shape=True),
        "audio.compress": Surface(
            lambda x: packed(AUDIO.compress(x, 16000)), WAVE.T.copy(), WAVE.T.copy(), WIDE, any_shape=True
        ),
        "audio.latent": Surface(lambda x: AUDIO.latent(x, 16000), WAVE.T.copy(), WAVE.T.copy(), WIDE, any_shape=True),
        "map of importance": Surface(lambda x: weight_map(x, (8, 16)), UNIT[0], UNIT[0], WIDE + " bool"),
        "features": Surface(lambda x: lz.encode(x, "features"), ROWS, ROWS, FLOATS, False, decoded, True),
        "features nmse": Surface(
            lambda x: lz.encode(x, "features", nmse=1e-6), ROWS, ROWS, FLOATS, False, decoded, True
        ),
        "features map": Surface(
            lambda x: lz.encode(x, "features", max_error=0.01, transform="map"), maps, maps, FLOATS, False,
            decoded, True,
        ),
        "features profile": Surface(profile.encode, ROWS, ROWS, FLOATS, False, any_shape=True),
        "FeatureCodec.compress": Surface(
            lambda x: packed(profile.compress(x)), ROWS, ROWS, FLOATS, False, any_shape=True
        ),
        "FeatureCodec.fit": Surface(
            lambda x: lz.FeatureCodec.fit(x).fingerprint, ROWS, ROWS, FLOATS, False, any_shape=True
        ),
        "FeatureCodec.fit weights": Surface(
            lambda x: lz.FeatureCodec.fit(ROWS, weights=x).fingerprint, deviations[:8], deviations[:8], WIDE, False,
            any_shape=True, none=True,
        ),
        "KVCacheCodec.encode": Surface(lambda x: kv.encode([(x, x)]), None, CACHE, FLOATS, False),
        "KVCacheCodec.fit": Surface(lambda x: lz.KVCacheCodec.fit([[(x, x)]]).fingerprint, None, CACHE, FLOATS, False),
        "KVCacheCodec.fit weights": Surface(
            lambda x: lz.KVCacheCodec.fit([cache], weights=[x]).fingerprint, deviations[:16], deviations[:16], WIDE,
            False, any_shape=True,
        ),
        "bottleneck": Surface(lambda x: bottleneck.encode(x, 50), UNIT[None], UNIT[None], WIDE),
        "encode bottleneck": Surface(lambda x: lz.encode(x, bottleneck), None, UNIT, "float16 bfloat16 float64"),
        "EmbeddingStore.write": Surface(stored, ROWS, ROWS, "float16", False),
        "EmbeddingStore.write parts": Surface(lambda x: stored(iter([x, x])), ROWS, ROWS, "float16", False),
        "store.search": Surface(
            lambda x: nearest(store, x), ROWS[:5].copy(), ROWS[:5].copy(), "float16", False, any_shape=True
        ),
        "store rows": Surface(
            lambda x: store[x], np.array([3, 5, 1, 4]), np.array([3, 5, 1, 4]), INTEGERS + " uint8", any_shape=True,
            errors=(IndexError,),
        ),
        "Dequantize": Surface(dequantize, latent, latent, INTEGERS, any_shape=True),
        "Encoder": Surface(lambda x: chunk(x, e.Gaussian(INDEX)), COUNTS, COUNTS, INTEGERS + " " + WIDE),
        "StreamEncoder": Surface(
            lambda x: chunk(x, e.Laplace(INDEX), e.StreamEncoder), COUNTS, COUNTS, INTEGERS + " " + WIDE
        ),
        "Uniform": Surface(lambda x: chunk(x, e.Uniform(-9, 8, COUNTS.shape)), COUNTS, COUNTS, INTEGERS + " " + WIDE),
        "raw": Surface(
            lambda x: chunk(x, e.Uniform(0, 31, COUNTS.shape)), COUNTS + 9, COUNTS + 9, INTEGERS + " uint8 " + WIDE
        ),
        "index": Surface(lambda x: chunk(COUNTS, e.Gaussian(x)), INDEX, INDEX, INTEGERS + " uint8 uint16"),
        "index of a decoder": Surface(
            lambda x: read(chunk(COUNTS, e.Gaussian(INDEX)), e.Gaussian(x, shape=INDEX.shape)),
            INDEX, INDEX, INTEGERS + " uint8 uint16", any_shape=True,
        ),
        "offset": Surface(lambda x: chunk(COUNTS, e.Gaussian(INDEX, x)), COUNTS, COUNTS, INTEGERS, any_shape=True),
        "scale": Surface(
            lambda x: chunk(COUNTS, e.Gaussian(scale=x)), pairs[..., 0].copy(), pairs[..., 0].copy(), WIDE, False
        ),
        "scale_index": Surface(
            lambda x: np.asarray(e.scale_index(x)), deviations, deviations, WIDE, False, any_shape=True
        ),
        "bits": Surface(
            lambda x: float(e.Gaussian(INDEX).bits(x)), COUNTS, None, INTEGERS + " float32 float64 longdouble"
        ),
        "mixture": Surface(
            lambda x: chunk(COUNTS, e.Mixture(x, ZEROS, ZEROS + 20)), SHARES, SHARES, INTEGERS[5:] + " uint8 uint16"
        ),
        "bits of a mixture": Surface(
            lambda x: float(e.Mixture(SHARES, ZEROS, ZEROS + 20).bits(x)), COUNTS, None,
            INTEGERS + " float32 float64 longdouble",
        ),
        "Mixture.from_float": Surface(
            lambda x: chunk(COUNTS, e.Mixture.from_float(x, x, x)), pairs, pairs, WIDE, False
        ),
        "TableBank": Surface(
            lambda x: e.TableBank([x], [0], [0], 4).fingerprint(), np.array([10, 5, 1]), np.array([10, 5, 1]),
            INTEGERS + " uint8 uint16", any_shape=True,
        ),
        "from_histograms": Surface(
            lambda x: e.TableBank.from_histograms([x], -1, 8).fingerprint(), np.array([10.0, 5, 1]),
            np.array([10.0, 5, 1]), INTEGERS + " uint8 uint16 " + WIDE, any_shape=True,
        ),
        "ideal_bits": Surface(
            lambda x: BANK.ideal_bits(x, ZEROS[..., 0]), COUNTS, COUNTS, INTEGERS + " " + WIDE, any_shape=True
        ),
        "encode_batch": Surface(
            lambda x: e.encode_batch([[(x, e.Gaussian(INDEX))]]), COUNTS, COUNTS, INTEGERS + " " + WIDE
        ),
        "float_bits": Surface(
            lambda x: plain(e.float_bits(x, torch.ones(30))), None, deviations, "float16 bfloat16 float64", False,
            any_shape=True,
        ),
        "FactorizedPrior.bits": Surface(
            lambda x: plain(e.FactorizedPrior(3).bits(x)), None, UNIT[None], "float16 bfloat16 float64", False,
            any_shape=True,
        ),
        "evaluation of a tensor": Surface(lambda x: load(x).data, ROWS, None, WIDE, False, None, True),
        "evaluation of a picture": Surface(lambda x: load(x).data, PICTURE, None, any_shape=True),
        "evaluation of a sound": Surface(lambda x: load((x, 16000)).data, WAVE, WAVE, WIDE, False, None, True),
        "psnr": Surface(lambda x: of_pictures.psnr(x, PICTURE[::-1]), PICTURE, PICTURE),
        "snr": Surface(lambda x: round(of_sound.snr(x, WAVE * 0.9), 6), WAVE, WAVE, WIDE, False),
        "cosine": Surface(
            lambda x: round(of_tensors.cosine(x, ROWS * 0.9), 6), ROWS, ROWS, WIDE + " " + INTEGERS, False
        ),
        "numcodecs": Surface(
            lambda x: bytes(features.encode(x)), ROWS, None, "float16", False, any_shape=True, errors=(TypeError,)
        ),
    }  # fmt: skip


def plain(x: torch.Tensor) -> torch.Tensor:
    return x.detach().as_subclass(torch.Tensor)
