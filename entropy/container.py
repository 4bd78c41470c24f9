"""The `.ltz` container: header, boxes, chunks; every byte is checked (docs/format.md is normative).

The container knows no codec: it carries a codec's name, the fingerprint of its weights, the signal's shape
and the codec's own parameters and payloads. Needs neither torch nor numpy.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import BinaryIO, overload

from .errors import FormatError, InputError, LimitError, UnsupportedError

# a byte above ASCII, both line endings and a DOS end of file: damage by text-mode transfers shows
SIGNATURE = b"\x89LTZ\r\n\x1a\n"
VERSION = 1
EXTENSION = ".ltz"
FINGERPRINT_BYTES = 8
CRC_BYTES = 4
MAX_RANK = 8

# Ids are written down, never computed: a number keeps its meaning for ever.
MODALITIES = {"image": 0, "audio": 1, "tensor": 2}
KINDS = {"pil": 0, "numpy": 1, "tensor": 2}
DTYPES = {"uint8": 0, "uint16": 1, "float16": 2, "bfloat16": 3, "float32": 4, "float64": 5,
          "int16": 6, "int24": 7, "int32": 8}  # fmt: skip
SOUND_DTYPES = frozenset({"int16", "int24", "int32"})
MODES = {"": 0, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 5, "I": 6, "F": 7, "L;1": 8, "mono": 9, "file": 10,
         "1": 11, "P": 12, "CMYK": 13, "YCbCr": 14, "LAB": 15, "HSV": 16}  # fmt: skip

ICC, EXIF, XMP, TAGS, TRNS, AUX, RANGE, PALETTE = 1, 2, 3, 4, 5, 0x85, 0x86, 0x87
CRITICAL = 0x80  # set in a box type that decoding depends on
BOX_NAMES = {ICC: "ICC", EXIF: "EXIF", XMP: "XMP", TAGS: "TAGS", TRNS: "TRNS", AUX: "AUX", RANGE: "RANGE",
             PALETTE: "PALETTE"}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What a reader is ready to believe; checked before anything is allocated.

    Attributes:
        samples: positions of the signal: H * W of an image, elements of a tensor.
        sound: samples of audio in a channel: more than of others, since sound is decoded piece by piece.
        channels: first dimension of an image or audio signal.
        chunks, boxes: how many.
        header, params, name: bytes of the whole header, of the codec's parameters and of its name.
        metadata: bytes of all optional boxes together.
        auxiliary: bytes of an auxiliary plane, as stored.
    """

    samples: int = 1 << 28
    sound: int = 1 << 34
    channels: int = 1 << 12
    chunks: int = 1 << 16
    boxes: int = 64
    header: int = 1 << 20
    params: int = 1 << 16
    name: int = 64
    metadata: int = 1 << 24
    auxiliary: int = 1 << 29


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Header:
    """What a stream says about itself.

    Attributes:
        codec: name, ASCII.
        fingerprint: 8 bytes that name the weights and tables decoding depends on.
        modality: ``"image"``, ``"audio"`` or ``"tensor"``.
        kind: what kind of object came in: ``"pil"``, ``"numpy"`` or ``"tensor"``.
        shape: as coded: (C, H, W) of an image, all >= 1; (C, T) of audio, where T may be 0; any rank <= 8 of a
            tensor, where sizes may be 0.
        dtype: of the original: uint8, uint16, int16, int24, int32, float16, bfloat16, float32 or float64.
        mode: how samples were arranged: a Pillow mode, ``"L;1"`` for a grey array with a channel axis, ``"mono"`` for
            sound without a channel axis, ``"file"`` for sound of a file, or "".
        sample_rate: in Hz; 0 where there is none.
        params: the codec's own parameters.
    """

    codec: str
    fingerprint: bytes
    modality: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    mode: str = ""
    sample_rate: int = 0
    params: bytes = b""


@dataclass(frozen=True)
class Box:
    """Data beside the payload: a type (bit 7 set when decoding depends on it) and bytes."""

    type: int
    data: bytes

    @property
    def name(self) -> str:
        return BOX_NAMES.get(self.type, f"#{self.type}")


@dataclass(frozen=True)
class Index:
    """A header and where everything lies, without any payload.

    Attributes:
        boxes: (type, bytes) of each box, unknown optional ones included.
        chunk_sizes: bytes of each chunk.
        start: offset of the first byte after the header.
        num_bytes: length of the whole stream, as the header implies it.
        version: of the format.
    """

    header: Header
    boxes: tuple[tuple[int, int], ...]
    chunk_sizes: tuple[int, ...]
    start: int
    num_bytes: int
    version: int = VERSION


class Chunks(Sequence[bytes]):
    """Payloads in chunk order, cut out and checked when they are asked for.

    Raises:
        FormatError: on access, when a chunk's checksum does not match.
    """

    def __init__(self, blob: memoryview | _File, sizes: Sequence[int], start: int) -> None:
        self._blob, self._sizes = blob, tuple(sizes)
        offsets, at = [], start
        for size in self._sizes:
            offsets.append(at)
            at += size + CRC_BYTES
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        return _checked(self._blob, self._offsets[i], self._sizes[i], f"chunk {i}")


class _File:
    """An open file that is sliced like memory."""

    def __init__(self, file: BinaryIO, begin: int) -> None:
        self._file, self._begin, self._lock = file, begin, Lock()

    def __getitem__(self, part: slice) -> bytes:
        with self._lock:
            self._file.seek(self._begin + part.start)
            return self._file.read(part.stop - part.start)


@dataclass(frozen=True)
class Container:
    """A stream that was read: header, known boxes (checked), and chunks (checked on access)."""

    header: Header
    boxes: tuple[Box, ...]
    chunks: Chunks
    index: Index

    def box(self, number: int) -> bytes | None:
        """Data of the box of this type, None where there is none."""
        return next((b.data for b in self.boxes if b.type == number), None)


# --- writing -----------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _crc(data: bytes | bytearray | memoryview) -> bytes:
    return zlib.crc32(data).to_bytes(CRC_BYTES, "little")


def packed_string(data: bytes) -> bytes:
    """Bytes behind their number."""
    return _varint(len(data)) + data


def head(header: Header, sizes: Sequence[int], boxes: Sequence[Box] = (), limits: Limits = DEFAULT_LIMITS) -> bytes:
    """A stream up to its boxes and chunks, whose sizes are given; `seal` makes of each what follows.

    Raises:
        InputError: `read` would not accept the header: a field is invalid, or a limit exceeded.
    """
    problem = _problem(header, [(b.type, len(b.data)) for b in boxes], len(sizes), limits)
    if problem:
        raise InputError(problem[1])
    body = bytearray()
    body.append(MODALITIES[header.modality] | KINDS[header.kind] << 2 | DTYPES[header.dtype] << 4)
    body.append(MODES[header.mode])
    body += packed_string(header.codec.encode("ascii"))
    body += header.fingerprint
    body.append(len(header.shape))
    for n in header.shape:
        body += _varint(n)
    if header.modality == "audio":
        body += _varint(header.sample_rate)
    body += packed_string(header.params)
    body += _varint(len(sizes))
    for size in sizes:
        body += _varint(size)
    body += _varint(len(boxes))
    for box in boxes:
        body.append(box.type)
        body += _varint(len(box.data))
    if len(body) > limits.header:
        raise InputError(f"the header would take {len(body)} bytes; the format allows {limits.header}")
    start = bytes([VERSION]) + packed_string(bytes(body))
    return SIGNATURE + start + _crc(start)


def seal(data: bytes) -> bytes:
    """A box's data or a chunk with its checksum, as it stands in a stream."""
    return data + _crc(data)


def write(header: Header, chunks: Sequence[bytes], boxes: Sequence[Box] = (), limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Put a stream together; raises as `head` does."""
    parts = [head(header, [len(chunk) for chunk in chunks], boxes, limits)]
    for data in [*(b.data for b in boxes), *chunks]:
        parts += [data, _crc(data)]
    return b"".join(parts)


class Spool:
    """Chunks of a stream whose header is not known before the last of them: they wait in a file.

    Args:
        file: an empty file, open for writing and reading; usually a temporary one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sizes: list[int] = []

    def add(self, chunk: bytes) -> None:
        """The next chunk."""
        self._file.write(seal(chunk))
        self.sizes.append(len(chunk))

    def write_to(self, out: BinaryIO, header: Header, boxes: Sequence[Box] = ()) -> None:
        """The whole stream; raises as `head` does."""
        out.write(head(header, self.sizes, boxes))
        for box in boxes:
            out.write(seal(box.data))
        self._file.seek(0)
        while block := self._file.read(1 << 20):
            out.write(block)


# --- reading -----------------------------------------------------------------------------------------------


class _Reader:
    """Bounded reads over the header body; whatever is missing or not canonical is a FormatError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise FormatError("damaged .ltz header: it ends in the middle of a field")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value, self.at = read_varint(self.data, self.at)
        return value


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends; FormatError where it does not."""
    value = 0
    for shift in range(0, 63, 7):
        if at >= len(data):
            raise FormatError("truncated .ltz stream: it ends in the middle of a length")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                raise FormatError("damaged .ltz header: a length is not in its shortest form")
            return value, at
    raise FormatError("damaged .ltz header: a length is longer than 63 bits")


def _name_of(table: dict[str, int], value: int, what: str) -> str:
    for name, number in table.items():
        if number == value:
            return name
    raise UnsupportedError(f"the .ltz stream uses {what} number {value}, which this version does not know: {_UPGRADE}")


_UPGRADE = "install a newer latentzip (pip install -U latentzip)"

_FOREIGN = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"RIFF", "a RIFF (WebP or WAV) file"),
    (b"GIF8", "a GIF picture"),
    (b"\x1f\x8b", "gzip data: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "zstd data: unpack it first"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
)


def _check_signature(head: bytes) -> None:
    if head == SIGNATURE:
        return
    if not head:
        raise FormatError("empty: no .ltz stream")
    if SIGNATURE.startswith(head):
        raise FormatError(f"truncated .ltz stream: only {len(head)} bytes")
    if head[1:4] == b"LTZ":
        raise FormatError("damaged .ltz signature: the file was changed on its way, probably by a text-mode transfer")
    for magic, what in _FOREIGN:
        if head.startswith(magic):
            raise FormatError(f"not a .ltz stream but {what}")
    raise FormatError(f"not a .ltz stream: it begins with {head[:4].hex(' ')} instead of {SIGNATURE[:4].hex(' ')}")


def _problem(
    header: Header, boxes: Sequence[tuple[int, int]], chunks: int, limits: Limits
) -> tuple[type[FormatError], str] | None:
    """What is wrong with a header, for readers and writers alike: (error, text), or None."""
    name, shape = header.codec, header.shape
    if not (0 < len(name) <= limits.name and name.isascii() and name.isprintable() and " " not in name):
        return FormatError, f"codec name {name[:80]!r}: 1..{limits.name} printable ASCII characters, please"
    if len(header.fingerprint) != FINGERPRINT_BYTES:
        return (
            FormatError,
            f"the fingerprint has {len(header.fingerprint)} bytes instead of {FINGERPRINT_BYTES}",
        )
    for value, table, what in (
        (header.modality, MODALITIES, "modality"), (header.kind, KINDS, "kind"), (header.dtype, DTYPES, "dtype"),
        (header.mode, MODES, "mode"),
    ):  # fmt: skip
        if value not in table:
            return FormatError, f"unknown {what} {value!r}; one of {', '.join(map(repr, table))}"
    if header.dtype in SOUND_DTYPES and header.modality != "audio":
        return FormatError, f"samples of {header.dtype} do not suit modality {header.modality}"
    ranks = {"image": (3, 3), "audio": (2, 2), "tensor": (0, MAX_RANK)}[header.modality]
    if not ranks[0] <= len(shape) <= ranks[1]:
        return FormatError, f"a signal of modality {header.modality} cannot have {len(shape)} dimensions"
    if min(shape[: {"image": 3, "audio": 1, "tensor": 0}[header.modality]], default=1) < 1:
        return FormatError, f"the signal is empty: shape {shape}"
    channels, positions = (1, shape) if header.modality == "tensor" else (shape[0], shape[1:])
    if channels > limits.channels:
        return LimitError, f"{channels} channels; the limit is {limits.channels}"
    limit = limits.sound if header.modality == "audio" else limits.samples
    if prod(positions) > limit:
        size = " x ".join(map(str, positions))
        return LimitError, f"the signal has {size} samples; the limit is {limit} (see container.Limits)"
    if not 0 <= header.sample_rate < 1 << 32 or (header.sample_rate > 0) != (header.modality == "audio"):
        return FormatError, f"sample rate {header.sample_rate} does not suit modality {header.modality}"
    if len(header.params) > limits.params:
        return LimitError, f"{len(header.params)} bytes of codec parameters; the limit is {limits.params}"
    if chunks > limits.chunks:
        return LimitError, f"{chunks} chunks; the limit is {limits.chunks}"
    if len(boxes) > limits.boxes:
        return LimitError, f"{len(boxes)} boxes; the limit is {limits.boxes}"
    types = [t for t, _ in boxes]
    if len(set(types)) < len(types):
        return FormatError, "a box type occurs twice"
    if not all(0 < t < 256 for t in types):
        return FormatError, "box types lie in 1..255"
    optional = sum(size for t, size in boxes if not t & CRITICAL)
    if optional > limits.metadata:
        return LimitError, f"{optional} bytes of metadata; the limit is {limits.metadata}"
    critical = sum(size for t, size in boxes if t & CRITICAL)
    if critical > limits.auxiliary:
        return LimitError, f"{critical} bytes of auxiliary data; the limit is {limits.auxiliary}"
    return None


def _parse(head: bytes, limits: Limits) -> Index:
    """The index from everything up to the header's CRC, the signature included."""
    _, begin = read_varint(head, len(SIGNATURE) + 1)
    if _crc(memoryview(head)[len(SIGNATURE) : -CRC_BYTES]) != head[-CRC_BYTES:]:
        raise FormatError("damaged .ltz header: its checksum does not match")
    reader = _Reader(head[begin:-CRC_BYTES])
    flags, mode = reader.byte(), reader.byte()
    codec = reader.take(reader.varint())
    if not codec.isascii():
        raise FormatError("damaged .ltz header: the codec name is not ASCII")
    fingerprint = reader.take(FINGERPRINT_BYTES)
    rank = reader.byte()
    if rank > MAX_RANK:
        raise FormatError(f"damaged .ltz header: {rank} dimensions, {MAX_RANK} are allowed")
    shape = tuple(reader.varint() for _ in range(rank))
    modality = _name_of(MODALITIES, flags & 3, "modality")
    sample_rate = reader.varint() if modality == "audio" else 0
    params = reader.take(reader.varint())
    count = reader.varint()
    if count > limits.chunks:
        raise LimitError(f"{count} chunks; the limit is {limits.chunks}")
    sizes = tuple(reader.varint() for _ in range(count))
    count = reader.varint()
    if count > limits.boxes:
        raise LimitError(f"{count} boxes; the limit is {limits.boxes}")
    boxes = tuple((reader.byte(), reader.varint()) for _ in range(count))
    if reader.at != len(reader.data):
        raise FormatError(f"damaged .ltz header: {len(reader.data) - reader.at} bytes are left over")
    header = Header(
        codec=codec.decode("ascii"),
        fingerprint=fingerprint,
        modality=modality,
        kind=_name_of(KINDS, flags >> 2 & 3, "kind"),
        shape=shape,
        dtype=_name_of(DTYPES, flags >> 4, "dtype"),
        mode=_name_of(MODES, mode, "mode"),
        sample_rate=sample_rate,
        params=params,
    )
    problem = _problem(header, boxes, len(sizes), limits)
    if problem:
        raise problem[0](f"refused .ltz header: {problem[1]}")
    for number, _ in boxes:
        if number & CRITICAL and number not in BOX_NAMES:
            raise UnsupportedError(f"decoding needs box type {number}, which this version does not know: {_UPGRADE}")
    total = len(head) + sum(sizes) + sum(size for _, size in boxes) + CRC_BYTES * (len(sizes) + len(boxes))
    return Index(header, boxes, sizes, len(head), total)


def _head_length(prefix: bytes, limits: Limits) -> int:
    """Bytes up to and with the header's CRC, from the first bytes of a stream."""
    _check_signature(prefix[: len(SIGNATURE)])
    if len(prefix) <= len(SIGNATURE):
        raise FormatError(f"truncated .ltz stream: only {len(prefix)} bytes")
    version = prefix[len(SIGNATURE)]
    if version != VERSION:
        raise UnsupportedError(
            f"the .ltz stream has format version {version}, this latentzip reads version {VERSION}: {_UPGRADE}; "
            "if it should be version 1, the file is damaged"
        )
    length, begin = read_varint(prefix, len(SIGNATURE) + 1)
    if length > limits.header:
        raise LimitError(f"the .ltz header claims {length} bytes; the limit is {limits.header}")
    return begin + length + CRC_BYTES


_PREFIX = len(SIGNATURE) + 1 + 9


def read_header(source: bytes | bytearray | memoryview | BinaryIO, limits: Limits = DEFAULT_LIMITS) -> Index:
    """Header and tables only: of a whole stream, or from the start of an open binary file.

    The payload is neither read nor checked, except that its length must be the one the header implies, where
    it can be known (bytes, or a seekable file).

    Raises:
        FormatError, LimitError, UnsupportedError: as `read`.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        head = bytes(source[:_PREFIX])
        length = _head_length(head, limits)
        head, total = bytes(source[:length]), len(source)
    else:
        begin = source.tell() if source.seekable() else 0
        head = source.read(_PREFIX)
        length = _head_length(head, limits)
        if length > len(head):
            head += source.read(length - len(head))
        total = None
        if source.seekable():
            total = source.seek(0, 2) - begin
            head = head[:length]
    if len(head) < length:
        raise FormatError(f"truncated .ltz stream: the header needs {length} bytes, {len(head)} are there")
    index = _parse(head[:length], limits)
    if total is not None and total != index.num_bytes:
        what = "truncated .ltz stream" if total < index.num_bytes else "bytes after the end of the .ltz stream"
        raise FormatError(f"{what}: {total} bytes where the header asks for {index.num_bytes}")
    return index


def _checked(blob: memoryview | _File, at: int, size: int, what: str) -> bytes:
    data = bytes(blob[at : at + size])
    if blob[at + size : at + size + CRC_BYTES] != _crc(data):
        raise FormatError(f"damaged .ltz stream: the checksum of {what} does not match")
    return data


def _boxes(blob: memoryview | _File, index: Index) -> Iterator[Box]:
    at = index.start
    for number, size in index.boxes:
        data = _checked(blob, at, size, f"box {BOX_NAMES.get(number, number)}")
        at += size + CRC_BYTES
        if number in BOX_NAMES:
            yield Box(number, data)


def read_metadata(file: BinaryIO, index: Index, begin: int = 0) -> tuple[Box, ...]:
    """The optional boxes of a stream that starts at ``begin`` of a seekable file, and nothing else of it.

    Raises:
        FormatError: a box is cut off, or its checksum does not match.
    """
    found, at = [], begin + index.start
    for number, size in index.boxes:
        if not number & CRITICAL:
            file.seek(at)
            data = memoryview(file.read(size + CRC_BYTES))
            found.append(Box(number, _checked(data, 0, size, f"box {BOX_NAMES.get(number, number)}")))
        at += size + CRC_BYTES
    return tuple(found)


def read(blob: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> Container:
    """Take a stream apart. Boxes are checked now, chunks when they are accessed.

    Raises:
        FormatError: foreign, truncated or damaged bytes, or bytes after the end.
        LimitError: a declared size is beyond ``limits``.
        UnsupportedError: a newer format version, or a box that decoding needs and this version does not know.
    """
    view = memoryview(blob).toreadonly()
    if view.format != "B" or not view.c_contiguous:
        view = view.cast("B")
    return _container(view, read_header(view, limits))


def read_file(file: BinaryIO, limits: Limits = DEFAULT_LIMITS) -> Container:
    """The same of an open seekable file: chunks are read when they are accessed, and the file stays open for that."""
    begin = file.tell()
    return _container(_File(file, begin), read_header(file, limits))


def _container(source: memoryview | _File, index: Index) -> Container:
    boxes = tuple(_boxes(source, index))
    first = index.num_bytes - sum(index.chunk_sizes) - CRC_BYTES * len(index.chunk_sizes)
    return Container(index.header, boxes, Chunks(source, index.chunk_sizes, first), index)


def verify(blob: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> Index:
    """Check every byte against its checksum without decoding; raises as `read` does.

    Returns:
        The index of the stream.
    """
    container = read(blob, limits)
    for _ in container.chunks:
        pass
    return container.index
