"""Sound files through libsndfile: read and written in blocks, so that their length does not matter.

WAV, FLAC, Ogg (Vorbis, Opus), MP3, AIFF and others; m4a and video need FFmpeg and are refused with that remedy.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch
from torch import Tensor

from ...codecs.contract import EXACT, STREAMING, AnyCodec
from ...entropy import container
from ...entropy.container import Box, Container, Header, Spool
from ...entropy.errors import InputError, UnsupportedError
from ...warn import converted
from . import SUFFIXES, exact
from .layout import examine
from .layout.callbacks import Callbacks
from .layout.view import View
from .objects import check_header, open_stream, quantised, read_tags, tags_box, to_float, warn_clipped

Progress = Callable[[float, float], None]  # seconds of sound done and in all

_BLOCK = 1 << 17  # samples read or written at a time: long Vorbis writes overflow libsndfile's stack
_SPOOL = 1 << 25  # compressed bytes that wait in memory; more of them wait on disk
_TAGS = ("title", "artist", "album", "tracknumber", "date", "genre", "comment", "copyright", "license", "software")
_DTYPES = {
    "PCM_S8": "uint8", "PCM_U8": "uint8", "PCM_16": "int16", "PCM_24": "int24", "PCM_32": "int32",
    "FLOAT": "float32", "DOUBLE": "float64", "ALAC_20": "int24", "ALAC_24": "int24", "ALAC_32": "int32",
}  # fmt: skip
_PCM = {"uint8": "PCM_U8", "int16": "PCM_16", "int24": "PCM_24", "int32": "PCM_32"}
# extension -> (format, subtype; None for one that suits the signal)
_FORMATS = {
    ".wav": ("WAV", None), ".wave": ("WAV", None), ".flac": ("FLAC", None), ".aif": ("AIFF", None),
    ".aiff": ("AIFF", None), ".w64": ("W64", None), ".rf64": ("RF64", None), ".caf": ("CAF", None), ".au": ("AU", None),
    ".ogg": ("OGG", "VORBIS"), ".oga": ("OGG", "VORBIS"), ".opus": ("OGG", "OPUS"), ".mp3": ("MP3", "MPEG_LAYER_III"),
}  # fmt: skip
_CHANNELS = {"FLAC": 8, "MP3": 2}
_WAV_BYTES = (1 << 32) - (1 << 16)  # a WAV file says its length in 32 bits
_MAGIC = ((0, b"fLaC"), (0, b"OggS"), (0, b"ID3"), (0, b"RF64"), (0, b"caff"), (0, b".snd"), (0, b"riff"))
_FOREIGN = {".m4a", ".mp4", ".aac", ".wma", ".mkv", ".webm", ".mov", ".ac3", ".mka"}


def soundfile() -> Any:
    """The module; UnsupportedError says how to get it."""
    try:
        import soundfile as module
    except (ImportError, OSError) as error:
        raise UnsupportedError(f"sound files need soundfile: pip install soundfile ({error})") from error
    return module


def is_sound_file(head: bytes) -> bool:
    """Whether a file that begins so is one of sound."""
    if any(head[at : at + len(magic)] == magic for at, magic in _MAGIC):
        return True
    if head[:4] in (b"RIFF", b"FORM"):
        return head[8:12] in (b"WAVE", b"AIFF", b"AIFC")
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 in (0xE2, 0xE4, 0xE6)  # MPEG audio


def holds_sound(path: str | os.PathLike[str] | BinaryIO) -> bool:
    """Whether a file is one of sound: by its content, or by its name where it cannot be read."""
    if not isinstance(path, (str, os.PathLike)):
        head = path.read(12)
        path.seek(0)
        return is_sound_file(head)
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return Path(path).suffix.lower() in SUFFIXES
    return is_sound_file(head) or Path(path).suffix.lower() in SUFFIXES | _FOREIGN


# --- reading -----------------------------------------------------------------------------------------------------


@contextmanager
def open_sound(source: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> Iterator[Any]:
    """A path or a seekable open file, as `soundfile.SoundFile` has it; several streams in one file are read as one.

    What the file says of itself and does not hold, or holds and is not read, is said by a `ConversionWarning`.

    Raises:
        InputError: not a sound file that libsndfile reads.
        OSError: the file itself cannot be read.
    """
    sf = soundfile()
    path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
    name = name or path or "stream"
    with open(path, "rb") if path is not None else _kept(source) as file:  # type: ignore[arg-type]
        if not file.read(1):
            raise InputError(f"{name}: the file is empty")
        layout = examine(file)
        with ExitStack() as stack:
            sounds: list[Any] = []
            called: list[Callbacks] = []
            for i, segments in enumerate(layout.parts):
                calls = Callbacks(io.BufferedReader(View(file, segments), _BLOCK))
                try:
                    sound = stack.enter_context(sf.SoundFile(calls))
                except sf.LibsndfileError as error:
                    calls.check()
                    if not sounds:
                        raise _unreadable(name, error) from error
                    layout.notes.append(f"stream {i + 1} of {len(layout.parts)} cannot be read and is not coded")
                    break
                if sounds and (sound.samplerate, sound.channels) != (sounds[0].samplerate, sounds[0].channels):
                    layout.notes.append(
                        f"stream {i + 1} of {len(layout.parts)} has {sound.channels} channels at {sound.samplerate} Hz,"
                        f" the first {sounds[0].channels} at {sounds[0].samplerate}: it and what follows is not coded"
                    )
                    break
                sounds.append(sound)
                called.append(calls)
            for note in layout.notes:
                converted(f"{name}: {note}")
            yield _Joined(sounds, called)


class _Joined:
    """Streams of one file as one `soundfile.SoundFile`, as far as it is read."""

    def __init__(self, sounds: list[Any], called: list[Callbacks]) -> None:
        self._sounds, self._called, self._now = sounds, called, 0
        self.samplerate, self.channels, self.subtype = sounds[0].samplerate, sounds[0].channels, sounds[0].subtype
        self.frames = sum(sound.frames for sound in sounds)

    def seek(self, place: int) -> None:
        """To the start; there is no other place."""
        assert place == 0
        self._now = 0
        for sound, calls in zip(self._sounds, self._called):
            with calls.checked():
                sound.seek(0)

    def read(self, frames: int, **options: Any) -> Any:
        block = self._read(frames, options)
        while not len(block) and self._now + 1 < len(self._sounds):
            self._now += 1
            block = self._read(frames, options)
        return block

    def _read(self, frames: int, options: dict[str, Any]) -> Any:
        with self._called[self._now].checked():
            return self._sounds[self._now].read(frames, **options)

    def copy_metadata(self) -> dict[str, str]:
        return self._sounds[0].copy_metadata()


def check_length(sound: Any, samples: int, name: str) -> None:
    """Say so when a file gave fewer samples than its header promises."""
    if samples < sound.frames < 1 << 62:
        promised, came = sound.frames / sound.samplerate, samples / sound.samplerate
        converted(f"{name}: the file says {promised:.2f} s of sound and gave {came:.2f} s: it is cut short or damaged")


@contextmanager
def _kept(file: BinaryIO) -> Iterator[BinaryIO]:
    yield file


def _unreadable(name: str, error: Any) -> InputError:
    suffix = Path(name).suffix.lower()
    if suffix in _FOREIGN:
        return InputError(f"{name}: {suffix} files have to be converted first: ffmpeg -i FILE sound.wav")
    if suffix == container.EXTENSION:
        return InputError(f"{name}: this is a .ltz stream already; decode it")
    return InputError(f"{name}: not a sound file that can be read (libsndfile: {str(error.error_string).rstrip('.')})")


def blocks(sound: Any, name: str = "sound") -> Iterator[Tensor]:
    """Samples (C, n) float32 from the start of an open file to its end.

    Raises:
        InputError: the file is damaged.
    """
    sf = soundfile()
    try:
        sound.seek(0)
        while True:
            block = sound.read(_BLOCK, dtype="float32", always_2d=True)
            if not len(block):
                return
            yield torch.from_numpy(block).T.contiguous()
    except sf.LibsndfileError as error:
        raise InputError(f"{name}: damaged sound file: {error.error_string}") from error


def exact_blocks(sound: Any, name: str = "sound") -> Iterator[Any]:
    """Arrays (C, n) of the samples as the file has them; errors as `blocks`.

    What was coded with loss, such as Vorbis or MP3, counts as its decoder's 16 bits.
    """
    sf = soundfile()
    try:
        yield from exact.blocks(sound, dtype_of(sound), _BLOCK, name)
    except sf.LibsndfileError as error:
        raise InputError(f"{name}: damaged sound file: {error.error_string}") from error


def level_of(sound: Any, name: str, model: Any) -> float:
    """The level of a file, as a codec sees it."""
    top = 0.0
    for block in blocks(sound, name):
        if not bool(torch.isfinite(block).all()):
            raise InputError(f"{name}: the sound contains NaN or infinite values; replace them first")
        top = max(top, model.level_of(block))
    return top


def dtype_of(sound: Any) -> str:
    """The dtype that a file's samples come nearest to."""
    return _DTYPES.get(sound.subtype, "int16")


def tags_of(sound: Any) -> dict[str, str]:
    """Tags that libsndfile finds in a file."""
    found = sound.copy_metadata()
    return {key: found[key] for key in _TAGS if found.get(key)}


class _Whole:
    """The encoder of a codec that codes a signal at once."""

    def __init__(self, model: AnyCodec, channels: int, rate: int, options: dict[str, Any]) -> None:
        self._model, self._rate, self._options = model, rate, options
        self._parts: list[Tensor] = [torch.empty(channels, 0)]
        self.samples, self.params = 0, b""

    def feed(self, x: Tensor) -> list[bytes]:
        self._parts.append(x)
        self.samples += x.shape[1]
        return []

    def finish(self) -> list[bytes]:
        packed = self._model.compress(torch.cat(self._parts, 1), self._rate, **self._options)
        self.params = packed.params
        return packed.chunks


def _encoder(sound: Any, name: str, model: Any, options: dict[str, Any]) -> Any:
    if STREAMING not in model.capabilities:
        return _Whole(model, sound.channels, sound.samplerate, options)
    level = level_of(sound, name, model) if model.needs_level else 1.0
    return model.open_encoder(sound.channels, sound.samplerate, level=level, **options)


def encode_sound(
    source: str | os.PathLike[str] | BinaryIO,
    out: BinaryIO,
    model: Any,
    options: dict[str, Any] | None = None,
    metadata: str = "auto",
    progress: Progress | None = None,
    name: str | None = None,
) -> Header:
    """Encode a sound file to an open file; with a codec that streams in bounded memory, whatever its length.

    Args:
        source: path, or seekable open file.
        metadata: "none" leaves the tags behind.
        progress: is told the seconds done and in all.

    Raises:
        InputError: a file, signal or option that cannot be coded.
    """
    name = name or (os.fspath(source) if isinstance(source, (str, os.PathLike)) else "stream")
    with open_sound(source, name) as sound, tempfile.SpooledTemporaryFile(_SPOOL) as file:
        rate, channels, total = sound.samplerate, sound.channels, sound.frames / sound.samplerate
        encoder = _encoder(sound, name, model, options or {})
        spool = Spool(file)  # type: ignore[arg-type]
        whole = EXACT in model.capabilities
        for block in exact_blocks(sound, name) if whole else blocks(sound, name):
            for chunk in encoder.feed(block):
                spool.add(chunk)
            if progress is not None:
                progress(encoder.samples / rate, total)
        for chunk in encoder.finish():
            spool.add(chunk)
        check_length(sound, encoder.samples, name)
        boxes = tags_box(tags_of(sound)) if metadata != "none" else []
        header = Header(
            codec=model.name, fingerprint=model.fingerprint, modality="audio", kind="numpy",
            shape=(channels, encoder.samples), dtype=dtype_of(sound), mode="file",
            sample_rate=rate, params=encoder.params,
        )  # fmt: skip
        spool.write_to(out, header, boxes)
        return header


# --- writing -----------------------------------------------------------------------------------------------------


def check_format(suffix: str, header: Header, samples: int) -> tuple[str, str, str]:
    """(format, subtype, dtype of the samples to write) for a file name's suffix.

    Raises:
        InputError: no such sound file, or one that cannot hold this signal; the text says which can.
    """
    known = _FORMATS.get(suffix.lower())
    if known is None:
        raise InputError(f"cannot write sound as {suffix or 'a name without extension'}; use .wav, .flac, .ogg or .npy")
    kind, subtype = known
    channels, rate = header.shape[0], header.sample_rate
    if channels > _CHANNELS.get(kind, 1024):
        raise InputError(f"{suffix} files hold at most {_CHANNELS[kind]} channels, not {channels}; use .wav")
    if subtype == "OPUS" and rate not in (8000, 12000, 16000, 24000, 48000):
        raise InputError(f"Opus does not know {rate} Hz; use .wav or .flac")
    if kind == "FLAC" and samples == 0:
        raise InputError("FLAC cannot hold an empty signal; use .wav")
    dtype = header.dtype if header.dtype in _PCM else "float32"
    if subtype is not None:
        return kind, subtype, "float32"
    if kind == "FLAC":
        dtype = "int24" if dtype in ("float32", "int32") else "int16" if dtype == "uint8" else dtype
    elif dtype == "uint8" and kind != "WAV":
        dtype = "int16"
    size = samples * channels * {"int24": 3, "int16": 2, "uint8": 1}.get(dtype, 4)
    if kind == "WAV" and size > _WAV_BYTES:
        kind = "RF64"
        converted("more than 4 GB of samples are written as RF64, the WAV for large files")
    return kind, _PCM.get(dtype, "FLOAT"), dtype


def decode_sound(
    stream: Container,
    out: BinaryIO,
    suffix: str,
    model: AnyCodec,
    span: Any = None,
    progress: Progress | None = None,
) -> None:
    """Decode a stream of sound into an open seekable file of the format that a suffix asks for, in bounded memory.

    Args:
        span: (start, stop) in seconds.
        progress: is told the seconds done and in all.
    """
    sf = soundfile()
    header = stream.header
    check_header(header)
    decoder = open_stream(stream, model, span)
    kind, subtype, dtype = check_format(suffix, header, decoder.samples)
    rate, clipped, done = header.sample_rate, 0, 0
    calls = Callbacks(out)
    try:
        sound = sf.SoundFile(calls, "w", rate, decoder.channels, subtype, format=kind)
    except sf.LibsndfileError as error:
        calls.check()
        raise InputError(f"{kind} files do not hold {decoder.channels} channels at {rate} Hz; use .wav") from error
    whole = EXACT in model.capabilities
    if whole and dtype == "int24" and header.dtype not in ("uint8", "int16", "int24"):
        converted(f"{suffix} files hold 24 bits a sample: {header.dtype} is rounded; .wav keeps it as it is")
    with calls.checked(), sound:
        _write_tags(sound, stream.boxes)
        for part in decoder.decode(stream.chunks):
            done += part.shape[1]
            if progress is not None:
                progress(done / rate, decoder.samples / rate)
            if whole and dtype == header.dtype:
                for start in range(0, part.shape[1], _BLOCK):
                    sound.write(exact.left_justified(part[:, start : start + _BLOCK].numpy().T, dtype))
                continue
            samples = to_float(part, header.dtype) if whole else part.cpu()
            if dtype in _PCM:
                samples, count = quantised(samples, "int16" if dtype == "uint8" else dtype)
                clipped += count
            elif subtype != "FLOAT":
                clipped += int((samples.abs() > 1).sum())
                samples = samples.clamp(-1, 1)
            for block in samples.T.contiguous().split(_BLOCK):
                sound.write(block.numpy())
    warn_clipped(clipped, decoder.samples * decoder.channels, dtype if dtype in _PCM else kind)


def _write_tags(sound: Any, boxes: tuple[Box, ...]) -> None:
    for key, value in read_tags(boxes).items():
        if key in _TAGS:
            setattr(sound, key, value)


def spooled(stream: IO[bytes]) -> Any:
    """What a pipe holds, in a file that can be sought: short input stays in memory."""
    file = tempfile.SpooledTemporaryFile(_SPOOL)  # noqa: SIM115  the caller closes it
    shutil.copyfileobj(stream, file, 1 << 20)
    file.seek(0)
    return file
