"""codec-cli: what it writes, prints and returns; most run in this process, signals and start-up in their own."""

from __future__ import annotations

import argparse
import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import latentzip as lz
from latentzip import cli


@pytest.fixture
def photo(tmp_path, rgb):
    path = tmp_path / "photo.png"
    Image.fromarray(rgb).save(path)
    return path


@pytest.fixture
def packed(photo, codec):
    return lz.encode_file(photo, codec=codec)


@pytest.fixture
def run(capsysbinary):
    """Run a command: (exit status, stdout bytes, stderr lines)."""

    def call(*arguments):
        capsysbinary.readouterr()
        try:
            status = cli.main([str(a) for a in arguments])
        except SystemExit as stop:  # argparse
            status = stop.code
        out, err = capsysbinary.readouterr()
        return status, out, err.decode().splitlines()

    return call


def start(*arguments, **options):
    # a shell's background jobs ignore Ctrl-C, and so would programs that they start
    options.setdefault("preexec_fn", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    return subprocess.Popen([sys.executable, "-m", "latentzip", *map(str, arguments)], **options)


# --- there and back ----------------------------------------------------------------------------------------------


def test_two_commands(photo, codec, run, rgb, psnr):
    status, out, err = run("encode", photo, "-c", codec)
    assert (status, out) == (0, b"")
    assert len(err) == 1
    assert "bpp" in err[0]
    photo.unlink()
    status, out, _ = run("decode", photo.with_suffix(".ltz"))
    assert (status, out) == (0, b"")
    assert psnr(np.asarray(Image.open(photo)), rgb) > 25


def test_several_inputs_and_folders(tmp_path, codec, run, rgb):
    source = tmp_path / "in"
    (source / "deep" / "er").mkdir(parents=True)
    for name in ("a.png", "deep/b.jpg", "deep/er/c.bmp"):
        Image.fromarray(rgb).save(source / name)
    (source / "notes.txt").write_text("not a picture, and not asked for")
    assert run("encode", source, "-c", codec)[0] == 2
    status, _, err = run("encode", "-r", source, "-c", codec, "-o", tmp_path / "out", "--quiet")
    assert (status, err) == (0, [])
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.ltz"))
    assert names == ["a.ltz", "deep/b.ltz", "deep/er/c.ltz"]
    status, _, _ = run("decode", "-r", tmp_path / "out", "-o", f"{tmp_path}/back/", "--format", "jpg")
    assert status == 0
    assert Image.open(tmp_path / "back" / "deep" / "er" / "c.jpg").size == (rgb.shape[1], rgb.shape[0])
    files = [source / "a.png", source / "deep" / "b.jpg"]
    assert run("encode", *files, "-c", codec, "-o", tmp_path / "one.ltz")[0] == 2
    assert run("encode", *files, "-c", codec, "-o", tmp_path / "flat")[0] == 0
    assert sorted(p.name for p in (tmp_path / "flat").iterdir()) == ["a.ltz", "b.ltz"]


def test_outputs_that_collide(tmp_path, codec, run, rgb):
    for name in ("a.png", "a.bmp"):
        Image.fromarray(rgb).save(tmp_path / name)
    status, _, err = run("encode", tmp_path / "a.png", tmp_path / "a.bmp", "-c", codec, "-f", "--quiet")
    assert status == 1
    assert len(err) == 1
    assert "a.bmp: its output" in err[0]
    assert "a.png too" in err[0]


def test_standard_streams(photo, codec, run, monkeypatch, rgb, psnr):
    def stdin(data):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    stdin(photo.read_bytes())
    status, blob, _ = run("encode", "-", "-c", codec)
    assert status == 0
    assert lz.inspect(blob).codec == codec
    stdin(blob)
    status, png, _ = run("decode", "-", "-o", "-")
    assert status == 0
    assert psnr(np.asarray(Image.open(io.BytesIO(png))), rgb) > 25
    stdin(blob)
    assert np.load(io.BytesIO(run("decode", "-", "--latent")[1])).ndim == 3
    stdin(blob)
    assert run("info", "-")[0] == 0
    stdin(blob[:-1])
    status, out, err = run("decode", "-")
    assert (status, out) == (1, b"")
    assert err == [e for e in err if e.startswith("<stdin>: truncated")]
    assert run("encode", "-", "-", "-c", codec)[0] == 2
    assert run("encode", "-", "-c", codec, "--json")[0] == 2


def test_binary_is_not_for_terminals(photo, codec, run, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    status, _, err = run("encode", photo, "-c", codec, "-o", "-")
    assert status == 2
    assert "terminal" in err[0]


def test_quality(photo, run):
    assert run("encode", photo, "-c", "toy-variable", "-q", "80")[0] == 0
    assert "quality 80" in run("info", photo.with_suffix(".ltz"))[1].decode()
    status, _, err = run("encode", photo, "-c", "toy", "-q", "80", "-f")
    assert status == 1
    assert "one fixed rate" in err[0]


def test_region_and_latent(packed, run, tmp_path):
    whole = lz.decode(packed, "numpy")
    assert run("decode", packed, "-o", tmp_path / "p.png", "--region", "2,3,20,31")[0] == 0
    assert np.array_equal(np.asarray(Image.open(tmp_path / "p.png")), whole[2:20, 3:31])
    assert run("decode", packed, "-o", tmp_path / "z.npy", "--latent")[0] == 0
    assert np.array_equal(np.load(tmp_path / "z.npy"), lz.decode(packed, "latent").numpy())
    assert run("decode", packed, "-o", tmp_path / "z.png", "--latent")[0] == 2
    assert run("decode", packed, "--region", "5,5,5,9")[0] == 2
    status, _, err = run("decode", packed, "-o", tmp_path / "q.png", "--region", "0,0,999,9")
    assert status == 1
    assert "does not lie inside" in err[0]
    assert not (tmp_path / "q.png").exists()


# --- refusals ----------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten(photo, packed, codec, run):
    before = packed.read_bytes()
    status, _, err = run("encode", photo, "-c", codec)
    assert status == 1
    assert err == [f"{photo}: {packed} exists already; choose another name, or replace it with force (--force)"]
    assert run("encode", photo, "-c", codec, "--force")[0] == 0
    assert packed.read_bytes() == before
    # the original is in the way of the default name: the copy goes beside it, and nothing goes over that
    original, beside = photo.read_bytes(), packed.with_suffix(".decoded.png")
    assert run("decode", packed)[0] == 0
    copy = beside.read_bytes()
    assert run("decode", packed)[0] == 1
    assert (photo.read_bytes(), beside.read_bytes()) == (original, copy)
    assert run("decode", packed, "-o", photo)[0] == 1
    status, _, err = run("encode", photo, "-o", photo, "-f", "-c", codec)
    assert status == 1
    assert "same file" in err[0]


def test_one_line_a_failure_and_the_rest_is_done(photo, codec, run, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    status, _, err = run("encode", tmp_path / "bad.png", tmp_path / "none.png", photo, "-c", codec, "--quiet")
    assert status == 1
    assert err == [
        f"{tmp_path / 'bad.png'}: not a picture that Pillow can read",
        f"{tmp_path / 'none.png'}: No such file or directory",
    ]
    assert photo.with_suffix(".ltz").exists()


def test_damage_is_found_everywhere(packed, run, tmp_path):
    data = packed.read_bytes()
    out = tmp_path / "out.png"
    damaged = tmp_path / "damaged.ltz"
    for at in (0, 8, 12, 30, len(data) - 20, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 0x10
        damaged.write_bytes(changed)
        for command in (("decode", damaged, "-o", out), ("verify", damaged), ("verify", "--quick", damaged)):
            status, _, err = run(*command)
            assert status == 1, (at, command)
            assert len(err) == 1
            assert err[0].startswith(f"{damaged}: ")
    damaged.write_bytes(data[:-1])
    for command in (("decode", damaged, "-o", out), ("verify", damaged), ("info", damaged)):
        assert run(*command)[0] == 1
    assert not out.exists()
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".part")]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "COMMAND"),
        (("squash", "x"), "invalid choice"),
        (("encode",), "required"),
        (("encode", "x", "-q", "0"), "1..100"),
        (("encode", "x", "-q", "high"), "invalid"),
        (("encode", "x", "-j", "0"), "from 1"),
        (("encode", "x", "--metadata", "some"), "invalid choice"),
        (("encode", "x", "-c", "toyy"), "did you mean 'toy'"),
        (("decode", "x", "--region", "1,2,3"), "TOP"),
        (("decode", "x", "--force", "--forc"), "unrecognized"),
        (("decode", "x", "--latent", "--format", "png"), ".npy"),
    ],
)
def test_wrong_usage(arguments, text, run):
    status, _, err = run(*arguments)
    assert status == 2
    assert text in " ".join(err)


def test_tracebacks_on_demand(tmp_path, run, monkeypatch):
    monkeypatch.setenv("LATENTZIP_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        run("info", tmp_path / "none.ltz")


def test_warnings_are_lines(tmp_path, codec, run, rgb):
    Image.fromarray(rgb).convert("P").save(tmp_path / "p.png")
    status, _, err = run("encode", tmp_path / "p.png", "-c", codec)
    assert status == 0
    assert err[0] == f"{tmp_path / 'p.png'}: warning: a palette (mode P) is coded as RGB and decodes so"
    assert run("encode", tmp_path / "p.png", "-c", codec, "-f", "--quiet")[2] == []


# --- reports -----------------------------------------------------------------------------------------------------


def rows(out):
    return [json.loads(line) for line in out.splitlines()]


def test_json(photo, codec, run, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    status, out, _ = run("encode", photo, tmp_path / "bad.png", "-c", codec, "--json")
    good, bad = rows(out)
    blob = photo.with_suffix(".ltz").read_bytes()
    assert status == 1
    assert (good["input"], good["output"]) == (str(photo), str(photo.with_suffix(".ltz")))
    assert good["num_bytes"] == len(blob)
    assert bad["error"] == "not a picture that Pillow can read"
    (info,) = rows(run("info", photo.with_suffix(".ltz"), "--json")[1])
    assert info["shape"] == list(lz.inspect(blob).shape)
    (verified,) = rows(run("verify", photo.with_suffix(".ltz"), "--json")[1])
    assert verified["ok"] is True
    assert verified["decoded"] is True
    (decoded,) = rows(run("decode", photo.with_suffix(".ltz"), "-f", "--json")[1])
    assert decoded["output"] == str(photo)


def test_info_and_list(packed, codec, run):
    status, out, _ = run("info", packed)
    assert status == 0
    assert codec in out.decode()
    assert "53 x 37 RGB uint8" in out.decode()
    status, out, _ = run("list")
    assert status == 0
    assert out.decode().splitlines()[0].startswith("NAME")
    assert {row["name"] for row in rows(run("list", "--json")[1])} == {i.name for i in lz.list_codecs()}


def test_every_command_explains_itself(run):
    for command in ("encode", "decode", "info", "list", "verify", "train"):
        status, out, _ = run(command, "--help")
        assert status == 0
        assert b"usage: codec-cli " + command.encode() in out


# --- own processes -----------------------------------------------------------------------------------------------


def test_start_up(packed):
    """Light commands import nothing heavy. Seconds of the processor: the machine may be busy."""
    for arguments in (["--help"], ["list"], ["info", str(packed)], ["verify", "--quick", str(packed)]):
        program = (
            f"import sys; from latentzip.cli import main\ntry: main({arguments!r})\nexcept SystemExit: pass\n"
            "heavy = {'torch', 'numpy', 'numba', 'PIL', 'tqdm'} & set(sys.modules); assert not heavy, heavy"
        )
        before = os.times().children_user
        subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
        assert os.times().children_user - before < 3


def test_reader_that_leaves(packed):
    process = start("info", *[packed] * 2000, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 1


@pytest.mark.skipif(os.name != "posix", reason="terminals")
def test_progress_shows_on_a_terminal_after_a_second(monkeypatch):
    import fcntl
    import pty
    import struct
    import termios

    from latentzip.cli import common

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        began = time.monotonic()
        bar = common._bar(argparse.Namespace(quiet=False), 1)
        assert bar is not None
        bar.begin("big.bmp")
        assert select.select([ours], [], [], 60)[0]
        assert time.monotonic() - began >= 1  # quick work shows nothing
        time.sleep(0.6)
        bar.close()
        terminal.flush()
        assert b"big.bmp 00:" in os.read(ours, 1 << 16)
    os.close(ours)
    monkeypatch.undo()
    assert common._bar(argparse.Namespace(quiet=True), 1) is None


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupts_leave_nothing_half_written(number, status, tmp_path, codec, rgb):
    big = np.tile(rgb, (20, 12, 1))
    for i in range(40):
        Image.fromarray(big).save(tmp_path / f"{i:02}.bmp")
    process = start("encode", "-r", tmp_path, "-o", f"{tmp_path}/out/", "-c", codec, "-j", 1, stderr=subprocess.PIPE)
    assert process.stderr is not None
    process.stderr.readline()  # the first file is done, the next is at work
    time.sleep(0.1)
    process.send_signal(number)
    rest = process.stderr.read().decode()
    assert process.wait(timeout=60) == status, rest
    assert "Traceback" not in rest
    done = list((tmp_path / "out").iterdir())
    assert 0 < len(done) < 40
    for path in done:
        assert path.suffix == ".ltz"
        lz.inspect(path)


def test_another_process_decodes_the_same(packed):
    """Another process, one and two threads: the same latents and the same pixels."""
    program = (
        "import sys, torch, numpy as np, latentzip as lz\n"
        "for threads in (1, 2):\n"
        "    torch.set_num_threads(threads)\n"
        "    x, z = lz.decode(sys.argv[1], 'numpy'), lz.decode(sys.argv[1], 'latent').numpy()\n"
        "    np.savez(sys.argv[1] + str(threads), x=x, z=z)"
    )
    subprocess.run([sys.executable, "-c", program, str(packed)], check=True)
    for threads in (1, 2):
        there = np.load(f"{packed}{threads}.npz")
        assert np.array_equal(there["x"], lz.decode(packed, "numpy"))
        assert np.array_equal(there["z"], lz.decode(packed, "latent").numpy())


def test_console_script_is_installed():
    script = Path(sys.executable).with_name("codec-cli")
    if not script.exists():
        pytest.skip("not installed with its scripts")
    done = subprocess.run([script, "--version"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == f"codec-cli (latentzip) {lz.__version__}"


def test_tokens_out_of_a_file_and_into_one(run, tmp_path):
    x = np.zeros((40, 60, 3), np.uint8)
    x[:, 20:] = 200
    (tmp_path / "x.ltz").write_bytes(lz.encode(x, codec="vq", levels=3))
    assert run("decode", tmp_path / "x.ltz", "--to", "tokens", "-o", tmp_path / "t.npy")[0] == 0
    tokens = np.load(tmp_path / "t.npy")
    assert (tokens.dtype, tokens.shape) == (np.uint16, (3, 4, 4))
    back = ("encode", tmp_path / "t.npy", tmp_path / "y.ltz", "-c", "vq", "--tokens", "--size", "40,60")
    assert run(*back)[0] == 0
    assert np.array_equal(np.asarray(lz.decode(tmp_path / "y.ltz")), lz.decode(tmp_path / "x.ltz"))
    sound = (np.sin(np.arange(9000) / 9).astype(np.float32)[:, None] / 2, 16000)
    (tmp_path / "s.ltz").write_bytes(lz.encode(sound, codec="vq-audio", levels=2))
    assert lz.decode_file(tmp_path / "s.ltz", tmp_path / "s.npy", to="tokens") == tmp_path / "s.npy"
    back = ("encode", tmp_path / "s.npy", tmp_path / "z.ltz", "-c", "vq-audio", "--tokens", "--size", "9000")
    assert run(*back, "--rate", "16000", "--mono")[0] == 0
    assert np.array_equal(lz.decode(tmp_path / "z.ltz", to="tokens"), np.load(tmp_path / "s.npy"))
    assert lz.decode(tmp_path / "z.ltz").samples.shape[0] == 9000
    rows = np.random.default_rng(0).standard_normal((80, 8)).astype(np.float32)
    lz.FeatureCodec.fit(rows, transform="vq", size=4).save(tmp_path / "p.safetensors")
    np.save(tmp_path / "f.npy", rows)
    profile = ("--profile", tmp_path / "p.safetensors")
    assert run("encode", tmp_path / "f.npy", tmp_path / "f.ltz", "-c", "features", *profile)[0] == 0
    assert run("decode", tmp_path / "f.ltz", "--to", "tokens", "-o", tmp_path / "g.npy", *profile)[0] == 0
    assert np.load(tmp_path / "g.npy").shape == (4, 80)
    assert run("encode", tmp_path / "g.npy", tmp_path / "h.ltz", "-c", "features", "--tokens", *profile)[0] == 0
    both = [lz.decode(tmp_path / name, codec=lz.load_codec(tmp_path / "p.safetensors")) for name in ("f.ltz", "h.ltz")]
    assert np.array_equal(*both)
    assert run("encode", tmp_path / "g.npy", tmp_path / "i.ltz", "-c", "features", "--tokens")[0] == 1
    assert run("encode", tmp_path / "t.npy", tmp_path / "w.ltz", "-c", "vq", "--tokens", "--size", "400,60")[0] == 1
    wrong = [
        ["-c", "vq", "--size", "40,60"],
        ["--tokens"],
        ["-c", "vq", "--tokens", "-q", "3"],
        ["-c", "vq", "--tokens", "--rate", "16000"],
        ["-c", "vq-audio", "--tokens", "--size", "4,4"],
        ["-c", "features", "--tokens", "--size", "40,60"],
    ]
    for arguments in wrong:
        assert run("encode", tmp_path / "t.npy", tmp_path / "v.ltz", *arguments)[0] == 2
