"""The container: what goes in comes out, and nothing else gets through."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from latentzip.entropy import container
from latentzip.entropy.container import AUX, EXIF, ICC, TAGS, XMP, Box, Header, Limits, read, read_header, verify, write
from latentzip.entropy.errors import CodecError, FormatError, InputError, LimitError, UnsupportedError

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "container"

PICTURE = Header("walloc-rgb-16x", bytes(range(8)), "image", "pil", (3, 512, 768), "uint8", "RGB", 0, b"\1\0\x08")
SMALL = replace(PICTURE, codec="toy", shape=(3, 5, 7))
CHUNKS = [b"hello", b"", bytes(range(100))]
BOXES = [Box(ICC, b"profile"), Box(AUX, b"\1\0")]


def rebuilt(blob: bytes, body: bytes) -> bytes:
    """The stream with another header body and a checksum that fits."""
    head = b"\x01" + container.packed_string(body)
    return container.SIGNATURE + head + zlib.crc32(head).to_bytes(4, "little") + blob[read_header(blob).start :]


def body_of(blob: bytes) -> bytes:
    start = read_header(blob).start
    _, begin = container.read_varint(blob, 9)
    return blob[begin : start - 4]


@pytest.mark.parametrize(
    "header",
    [
        PICTURE,
        replace(PICTURE, mode="", kind="tensor", dtype="bfloat16", shape=(1, 1, 1)),
        replace(PICTURE, mode="L;1", kind="numpy", dtype="uint16", params=b""),
        Header("a", b"\xff" * 8, "audio", "numpy", (2, 1 << 27), "float32", sample_rate=48000),
        Header("kv", b"\0" * 8, "tensor", "tensor", (1, 2, 3, 4, 5, 6, 7, 8), "float64", params=b"x" * 65536),
    ],
    ids=["rgb", "tensor-picture", "grey16", "audio", "rank8"],
)
@pytest.mark.parametrize("chunks", [[], [b""], CHUNKS], ids=len)
@pytest.mark.parametrize("boxes", [[], BOXES], ids=len)
def test_round_trip(header, chunks, boxes):
    blob = write(header, chunks, boxes)
    stream = read(blob)
    assert stream.header == header
    assert list(stream.boxes) == boxes
    assert list(stream.chunks) == stream.chunks[:] == chunks
    assert stream.index == read_header(io.BytesIO(blob)) == verify(blob)
    assert stream.box(ICC) == (b"profile" if boxes else None)
    assert stream.index.num_bytes == len(blob)


def test_overhead_of_a_picture():
    blob = write(PICTURE, [b"x" * 30_000])
    assert len(blob) - 30_000 == 58  # 54 of header, of which the codec's name takes 15 and the fingerprint 8


def test_other_buffers():
    blob = write(SMALL, CHUNKS)
    for same in (bytearray(blob), memoryview(blob), memoryview(bytearray(blob))):
        assert read(same).chunks[0] == b"hello"


def test_every_byte_matters():
    blob = write(SMALL, CHUNKS, BOXES)
    for at in range(len(blob)):
        for change in (0x01, 0x80, 0xFF, 0x55):
            damaged = bytearray(blob)
            damaged[at] ^= change
            with pytest.raises(CodecError):
                verify(damaged)


def test_every_truncation_is_found():
    blob = write(SMALL, CHUNKS, BOXES)
    for length in range(len(blob)):
        with pytest.raises(FormatError):
            read(blob[:length])
        with pytest.raises(FormatError):
            read_header(io.BytesIO(blob[:length]))


def test_nothing_may_follow_the_end():
    with pytest.raises(FormatError, match="bytes after the end"):
        read(write(SMALL, CHUNKS) + b"\0")


def test_a_damaged_chunk_costs_only_itself():
    blob = bytearray(write(SMALL, CHUNKS))
    blob[-5] ^= 1
    stream = read(blob)
    assert stream.chunks[:2] == CHUNKS[:2]
    with pytest.raises(FormatError, match="chunk 2"):
        stream.chunks[2]
    with pytest.raises(IndexError):
        stream.chunks[3]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "empty"),
        (b"\x89LT", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "PNG picture"),
        (b"\xff\xd8\xff\xe0....", "JPEG picture"),
        (b"RIFF....WEBP", "RIFF"),
        (b"\x1f\x8b\x08\x00....", "unpack it first"),
        (b"hello, world", "begins with 68 65 6c 6c"),
        (container.SIGNATURE.replace(b"\r\n", b"\n") + b"\x01\x10", "text-mode transfer"),
    ],
)
def test_foreign_files_are_named(data, text):
    with pytest.raises(FormatError, match=text):
        read(data)


def test_newer_version_names_the_remedy():
    blob = bytearray(write(SMALL, CHUNKS))
    blob[8] = 2
    with pytest.raises(UnsupportedError, match=r"version 2.*newer latentzip"):
        read(blob)


def test_unknown_boxes():
    assert read(write(SMALL, CHUNKS, [Box(0x33, b"later"), Box(XMP, b"x")])).boxes == (Box(XMP, b"x"),)
    with pytest.raises(UnsupportedError, match=r"box type 179.*newer latentzip"):
        read(write(SMALL, CHUNKS, [Box(0x33 | 0x80, b"later")]))


@pytest.mark.parametrize(("at", "value", "what"), [(0, 0x03, "modality"), (0, 0x0C, "kind"), (0, 0xF0, "dtype")])
def test_reserved_numbers_are_refused(at, value, what):
    blob = write(SMALL, CHUNKS)
    body = bytearray(body_of(blob))
    body[at] |= value
    with pytest.raises(UnsupportedError, match=what):
        read(rebuilt(blob, bytes(body)))
    body = bytearray(body_of(blob))
    body[1] = 99
    with pytest.raises(UnsupportedError, match="mode number 99"):
        read(rebuilt(blob, bytes(body)))


def test_lengths_have_one_form():
    blob = write(SMALL, CHUNKS)
    body = body_of(blob)
    name = body.index(b"\x03toy")
    with pytest.raises(FormatError, match="shortest form"):
        read(rebuilt(blob, body[:name] + b"\x83\x00toy" + body[name + 4 :]))
    with pytest.raises(FormatError, match="63 bits"):
        read(rebuilt(blob, body[:name] + b"\xff" * 10 + body[name + 4 :]))
    with pytest.raises(FormatError, match="left over"):
        read(rebuilt(blob, body + b"\0"))
    for cut in range(len(body)):
        with pytest.raises(FormatError):
            read(rebuilt(blob, body[:cut]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"shape": (3, 1 << 15, 1 << 14)}, "limit is 268435456"),
        ({"shape": (4097, 1, 1)}, "4097 channels"),
        ({"params": b"x" * 65537}, "65537 bytes of codec parameters"),
        ({"codec": "x" * 65}, "printable ASCII"),
        ({"codec": ""}, "printable ASCII"),
        ({"codec": "a b"}, "printable ASCII"),
        ({"codec": "caf\u00e9"}, "printable ASCII"),
        ({"fingerprint": b"1234567"}, "7 bytes instead of 8"),
        ({"shape": (3, 0, 5)}, "empty"),
        ({"shape": (3, 5)}, "2 dimensions"),
        ({"modality": "tensor", "shape": (1,) * 9}, "9 dimensions"),
        ({"sample_rate": 8000}, "sample rate"),
        ({"modality": "audio", "shape": (1, 9)}, "sample rate 0"),
        ({"dtype": "int64"}, "unknown dtype"),
        ({"mode": "PA"}, "unknown mode"),
    ],
)
def test_nothing_is_written_that_cannot_be_read(change, text):
    with pytest.raises(InputError, match=text):
        write(replace(SMALL, **change), CHUNKS)


def test_limits_hold_before_anything_is_allocated():
    blob = write(PICTURE, CHUNKS, [Box(ICC, b"x" * 1000), Box(AUX, b"x" * 1000)])
    for limits in (
        Limits(samples=512 * 768 - 1), Limits(channels=2), Limits(chunks=2), Limits(boxes=1), Limits(header=30),
        Limits(params=2), Limits(metadata=999), Limits(auxiliary=999),
    ):  # fmt: skip
        with pytest.raises(LimitError):
            read(blob, limits)
    read(blob, Limits(samples=512 * 768, channels=3, chunks=3, boxes=2, params=3, metadata=1000, auxiliary=1000))
    with pytest.raises(InputError, match="twice"):
        write(PICTURE, [], [Box(EXIF, b""), Box(EXIF, b"")])


def test_a_huge_claim_costs_nothing():
    body = body_of(write(SMALL, [b""]))
    huge = body[:-3] + container._varint(1) + container._varint((1 << 62) - 1) + b"\0"
    with pytest.raises(FormatError, match="truncated"):
        read(rebuilt(write(SMALL, [b""]), huge))
    with pytest.raises(LimitError, match="claims"):
        read(container.SIGNATURE + b"\x01" + container._varint(1 << 40))


def test_header_of_a_large_file_is_read_alone(tmp_path):
    blob = write(PICTURE, [b"\0" * 5_000_000], [Box(TAGS, b"{}")])

    class Counting(io.BytesIO):
        seen = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            Counting.seen += len(data)
            return data

    index = read_header(Counting(blob))
    assert index.chunk_sizes == (5_000_000,)
    assert index.boxes == ((TAGS, 2),)
    assert Counting.seen < 100

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    assert read_header(Pipe(blob)) == index


def test_the_documented_example():
    text = (ROOT / "docs" / "format.md").read_text()
    lines = re.findall(r"^    ((?:[0-9A-F]{2} )*[0-9A-F]{2})  +\S", text[text.index("## Example") :], re.M)
    blob = bytes.fromhex("".join(lines))
    assert blob == (GOLDEN / "example-v1.ltz").read_bytes()
    assert f"{len(blob)} bytes" in text
    header = Header("demo", bytes(range(8)), "image", "pil", (3, 2, 3), "uint8", "RGB", 0, b"\1\0\x08")
    assert blob == write(header, [b"data"], [Box(XMP, b"<x/>")])


def test_golden_streams_stay_readable():
    tensor = read((GOLDEN / "tensor-v1.ltz").read_bytes())
    shape, params = (2, 5, 1, 300, 7), bytes(range(200))
    name, fingerprint = "walloc-rgb-16x", bytes(range(100, 108))
    assert tensor.header == Header(name, fingerprint, "tensor", "tensor", shape, "bfloat16", params=params)
    assert tensor.boxes == (Box(TAGS, b'{"layer":"12"}'), Box(ICC, b"p" * 130))
    assert list(tensor.chunks) == [b"a" * 200, b"", b"\0\xff" * 70]
    audio = read((GOLDEN / "audio-v1.ltz").read_bytes())
    assert (audio.header.sample_rate, audio.header.shape, len(audio.chunks)) == (48000, (2, 480000), 40)


def test_needs_no_heavy_import():
    code = (
        "import sys; from latentzip.entropy import container; "
        "assert not {'torch', 'numpy', 'numba', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
