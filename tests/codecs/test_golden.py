"""Streams decode for ever: the same latents to the bit, the same pictures and sound to one level, floats to noise."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import latentzip as lz

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "ltz"
ENTRIES = json.loads((FOLDER / "index.json").read_text())


@pytest.mark.parametrize("name", ENTRIES)
def test_golden_stream(name):
    blob = (FOLDER / f"{name}.ltz").read_bytes()
    profile = FOLDER / f"{name}.safetensors"
    codec = lz.FeatureCodec.load(profile) if profile.exists() else None
    if "exact" in ENTRIES[name]:
        decoded = lz.decode(blob)
        decoded = np.ascontiguousarray(decoded[0] if isinstance(decoded, tuple) else decoded)
        assert list(decoded.shape) == ENTRIES[name]["shape"]
        assert hashlib.sha256(decoded.tobytes()).hexdigest() == ENTRIES[name]["exact"]
        return
    latent = np.ascontiguousarray(np.asarray(lz.decode(blob, to="latent", codec=codec)))
    assert list(latent.shape) == ENTRIES[name]["latent"]
    assert hashlib.sha256(latent.tobytes()).hexdigest() == ENTRIES[name]["sha256"]
    decoded = lz.decode(blob, codec=codec, precision="fp32")
    decoded = np.asarray(decoded[0] if isinstance(decoded, tuple) else decoded)
    expected = np.load(FOLDER / f"{name}.npy")
    if "samples" in ENTRIES[name]:  # sound: every so many samples are kept
        assert len(decoded) == ENTRIES[name]["samples"]
        decoded = decoded[:: -(-len(decoded) // len(expected))]
    assert decoded.shape == expected.shape
    assert decoded.dtype == expected.dtype
    if lz.inspect(blob).modality == "tensor":  # float noise; nothing at all without loss
        tolerance = 0 if name == "features-lossless" else 1e-5
        np.testing.assert_allclose(decoded, expected, rtol=tolerance, atol=tolerance)
        return
    if decoded.dtype == np.float32:  # sound
        np.testing.assert_allclose(decoded, expected, atol=1e-5)
        return
    step = 257 if decoded.dtype == np.uint16 else 1
    assert np.abs(decoded.astype(np.int64) - expected).max() <= step


def test_every_current_codec_has_golden_streams():
    for info in lz.list_codecs():
        if info.source == "latentzip":
            assert any(name.startswith(info.name) for name in ENTRIES), info.name
