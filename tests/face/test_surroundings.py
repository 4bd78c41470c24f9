"""Round trips of every codec in whatever surroundings a program has made: the same bytes, the same signal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import latentzip as lz

RNG = np.random.default_rng(5)
Y, X = np.mgrid[:32, :40]
PICTURE = np.stack([60 + X, 80 + Y, (X + Y) % 200 + 20], -1).astype(np.uint8)
WAVE = (0.4 * np.sin(np.arange(2500) / 9)).astype(np.float32)
ROWS = RNG.normal(size=(90, 16)).astype(np.float32)
NAMES = [info.name for info in lz.list_codecs() if info.source == "latentzip"]


def signal_of(name) -> tuple[Any, dict[str, Any]]:
    modality = next(i.modality.split(", ")[0] for i in lz.list_codecs() if i.name == name)
    options = {"effort": 1} if name == "overfit" else {"nmse": 0.01} if modality == "tensor" else {}
    return {"image": PICTURE, "audio": (WAVE, 16000), "tensor": ROWS}[modality], options


def through(name):
    """(stream, what it decodes to)."""
    signal, options = signal_of(name)
    blob = lz.encode(signal, name, **options)
    back = lz.decode(blob)
    return blob, np.asarray(back[0] if isinstance(back, tuple) else back)


@pytest.fixture(scope="module")
def plain():
    return {name: through(name) for name in NAMES}


@contextmanager
def default_dtype(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def strict_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


SURROUNDINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "autocast bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast float16 and float16": lambda: both(torch.autocast("cpu", torch.float16), default_dtype(torch.float16)),
    "inference mode, deterministic": lambda: both(torch.inference_mode(), deterministic()),
    "grad, warnings are errors": lambda: both(torch.enable_grad(), strict_warnings()),
}


@contextmanager
def both(one, two):
    with one, two:
        yield


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_loaded_codecs_do_not_notice(name, surroundings, plain):
    with SURROUNDINGS[surroundings]():
        blob, back = through(name)
        dtype = torch.get_default_dtype()
    expected = next((d for d in ("float64", " float16") if surroundings.endswith(d)), "float32").strip()
    assert str(dtype)[6:] == expected
    assert blob == plain[name][0]
    assert np.array_equal(back, plain[name][1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_profiles_caches_and_bottlenecks_inside_autocast(dtype):
    rows = torch.from_numpy(ROWS)
    pairs = [(torch.randn(1, 2, 200, 16), torch.randn(1, 2, 200, 16)) for _ in range(2)]
    profile, cache = lz.FeatureCodec.fit([rows], nmse=0.01), lz.KVCacheCodec.fit([pairs], nmse=0.01)
    one, two = lz.encode(rows, codec=profile), cache.encode(pairs)
    with torch.autocast("cpu", dtype):
        assert lz.encode(rows, codec=profile) == one
        assert torch.equal(lz.decode(one, codec=profile), lz.decode(one, codec=profile))
        assert cache.encode(pairs) == two
        for (k, v), (a, b) in zip(cache.decode(two), pairs):
            assert float((k - a).square().mean()) < 0.02
            assert float((v - b).square().mean()) < 0.02
        bounded = lz.decode(lz.encode(rows, codec="features", max_error=0.02))
        assert float((bounded - rows).abs().max()) <= 0.02
        again = lz.FeatureCodec.fit([rows], nmse=0.01)
    assert again.fingerprint == profile.fingerprint


CHILD = """
import hashlib, json, multiprocessing, os, sys
{before}
import numpy as np, latentzip as lz
Y, X = np.mgrid[:32, :40]
PICTURE = np.stack([60 + X, 80 + Y, (X + Y) % 200 + 20], -1).astype(np.uint8)
WAVE = (0.4 * np.sin(np.arange(2500) / 9)).astype(np.float32)
ROWS = np.random.default_rng(5).normal(size=(90, 16)).astype(np.float32)
out = {{}}
def work():
    for name, modality in json.loads(sys.argv[1]):
        signal = {{"image": PICTURE, "audio": (WAVE, 16000), "tensor": ROWS}}[modality]
        options = {{"effort": 1}} if name == "overfit" else {{"nmse": 0.01}} if modality == "tensor" else {{}}
        blob = lz.encode(signal, name, **options)
        lz.decode(blob)
        out[name] = hashlib.sha256(blob).hexdigest()
    return out
def children():
    work()
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply(work) == out, method
if __name__ == "__main__":
    {run}
    print(json.dumps(out))
"""
REFUSE = """
import errno
import numba.core.caching as caching
def refuse(self):
    raise OSError(errno.EROFS, "Read-only file system")
for item in list(vars(caching).values()):
    if isinstance(item, type) and issubclass(item, caching._CacheLocator):
        item.ensure_cache_path = refuse
"""
SHORT = ["walloc-rgb-16x", "hyperprior-fast", "audio", "features"]  # a fresh process each: not every codec
PROCESSES: dict[str, tuple[dict[str, str], list[str], str, list[str]]] = {
    "no place for a cache": ({}, [], REFUSE, ["walloc-rgb-16x", "hyperprior-fast"]),
    "no JIT": ({"NUMBA_DISABLE_JIT": "1"}, [], "", SHORT),
    "warnings are errors": ({}, ["-W", "error"], "", SHORT),
    "much at once": (
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        ["-OO", "-W", "error::UserWarning", "-W", "error::DeprecationWarning:latentzip"],
        "import torch; torch.set_default_dtype(torch.float64); torch.inference_mode().__enter__()",
        SHORT,
    ),
    "forked and spawned after use with threads": ({"OMP_NUM_THREADS": "2"}, [], "", NAMES),
}


@pytest.mark.parametrize("surroundings", PROCESSES)
def test_processes_write_the_same_streams(surroundings, tmp_path, plain):
    import hashlib

    variables, flags, before, some = PROCESSES[surroundings]
    script = tmp_path / "child.py"
    run = "children()" if surroundings.startswith("forked") else "work()"
    script.write_text(CHILD.format(before=before, run=run))
    env = os.environ | {key: value.replace("{tmp}", str(tmp_path)) for key, value in variables.items()}
    modality = {i.name: i.modality.split(", ")[0] for i in lz.list_codecs()}
    names = json.dumps([(name, modality[name]) for name in some])
    done = subprocess.run([sys.executable, *flags, str(script), names], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-600:]
    want = {name: hashlib.sha256(plain[name][0]).hexdigest() for name in some}
    assert json.loads(done.stdout) == want


def test_file_names_of_any_encoding(tmp_path):
    path = os.fsencode(tmp_path) + b"/photo-\xff\xe9.npy"
    np.save(open(path, "wb"), PICTURE)  # noqa: SIM115
    target = Path(os.fsdecode(path)).with_suffix(".ltz")
    assert lz.encode_file(os.fsdecode(path), codec="walloc-rgb-16x") == target
    assert lz.decode(target).shape == PICTURE.shape
    cli = Path(sys.executable).with_name("codec-cli")
    done = subprocess.run([str(cli), "info", str(target)], capture_output=True, env=os.environ | {"LC_ALL": "C"})
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr


def test_codecs_that_were_loaded_in_inference_mode_can_be_trained():
    from latentzip.codecs import registry

    registry._load.cache_clear()
    with torch.inference_mode():
        codec = lz.load_codec("walloc-rgb-linear")
    loss = codec(torch.rand(1, 3, 32, 32))[0].square().mean()
    loss.backward()
    assert any(p.grad is not None for p in codec.parameters())
    registry._load.cache_clear()


@pytest.mark.parametrize("first", ["latentzip.entropy.compiled.lanes", "latentzip.kernels.lines"])
def test_compiling_leaves_the_streams_alone(first, tmp_path):
    """Where colorama is installed, numba swaps sys.stderr for colours; loops compile in a background thread."""
    (tmp_path / "colorama.py").write_text(
        "import sys\n__version__ = '0.4.6'\nFore = Style = type('Codes', (), {'__getattr__': lambda s, name: ''})()\n"
        "def init(*a, **k): sys.stderr = None\nreinit = deinit = init\n"
    )
    program = f"import sys, {first}; from numba.core.errors import TypingError as E; E('no type'); print(sys.stderr)"
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_DISABLE_ERROR")}
    surroundings["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", program], env=surroundings, capture_output=True, text=True, check=True)
    assert "stderr" in done.stdout
