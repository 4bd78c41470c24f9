"""Files: names of outputs, and writing that leaves either the whole file or nothing."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .codecs.outputs import atomic_writer, check_writable, is_special
from .entropy import container
from .entropy.errors import InputError

if TYPE_CHECKING:
    from .codecs.base import Precision
    from .codecs.contract import AnyCodec
    from .entropy.container import Container, Header

StrPath = str | os.PathLike[str]


def default_suffix(header: Header) -> str:
    """Extension under which a stream is decoded: the plainest format that holds its signal in full."""
    if header.modality == "audio":
        return ".wav"
    if header.mode == "F":
        return ".tif"
    deep = header.dtype != "uint8" and header.kind != "pil"
    if header.modality != "image" or not header.mode or (deep and header.mode not in ("L", "L;1")):
        return ".npy"
    return ".npy" if deep and header.dtype != "uint16" else ".png"


def write_decoded(
    source: bytes | StrPath,
    stream: BinaryIO,
    suffix: str,
    *,
    latent: bool = False,
    region: tuple[int, int, int, int] | tuple[int, int] | None = None,
    span: tuple[float, float] | None = None,
    device: str | None = None,
    codec: AnyCodec | None = None,
    precision: Precision = "fp32",
    progress: Callable[[float, float], None] | None = None,
) -> None:
    """Decode ``source``, bytes or a path, into an open file in the format of ``suffix``: ``.npy``, what Pillow writes
    under it, or a sound file, which is written piece by piece."""
    from .api import decode

    with _opened(source) as box:
        header = box.header
        if header.modality == "audio" and not latent and suffix.lower() != ".npy":
            from .api import check_model, codec_of
            from .signals.sound.files import decode_sound

            if region is not None:
                raise InputError("region is for pictures and tensors; sound takes span=(start, stop) in seconds")
            model: Any = codec or codec_of(header, device or "cpu", precision)
            check_model(header, model)
            decode_sound(box, stream, suffix, model, span, progress)
            return
    options: dict[str, Any] = {"span": span, "codec": codec, "precision": precision}
    if latent or suffix.lower() == ".npy":
        if suffix.lower() != ".npy":
            raise InputError(f"latents are written as .npy, not {suffix or 'without extension'}")
        import numpy as np

        if header.dtype == "bfloat16" and header.modality == "tensor":
            from .warn import converted

            converted("bfloat16 values are written as float32: .npy has no bfloat16")
        value = decode(source, "latent" if latent else "numpy", region, device, **options)
        if header.modality == "audio" and not latent:
            value = value.samples
        np.save(stream, value.numpy() if latent else value, allow_pickle=False)
        return
    from .signals.pictures.files import check_suffix, save_picture
    from .warn import converted

    check_suffix(suffix)
    if header.modality == "tensor":
        raise InputError(f"a tensor is written as .npy, not {suffix}")
    if header.mode != "F" and default_suffix(header) == ".npy":
        converted(f"{header.dtype} samples are rounded to 8 bits for {suffix}; .npy keeps them in full")
    save_picture(decode(source, "pil", region, device, **options), stream, suffix)


@contextmanager
def _opened(source: bytes | StrPath) -> Iterator[Container]:
    from .api import opened

    with opened(source) as stream:
        yield stream


def encode_file(
    src: StrPath,
    dst: StrPath | None = None,
    codec: str | AnyCodec | None = None,
    quality: float | None = None,
    device: str | None = None,
    metadata: str = "auto",
    force: bool = False,
    progress: Callable[[float, float], None] | None = None,
    **options: Any,
) -> Path:
    """Encode a picture, a sound file of any length, or an array in a ``.npy`` file, to a `.ltz` file.

    Args:
        dst: the file to write; by default ``src`` with the extension ``.ltz``. A folder: a file of that name in it.
        codec, quality, device, metadata: as `encode`.
        force: replace an existing file.
        progress: of sound: is told the seconds done and in all.
        options: what else the codec understands, by name, as `encode`.

    Returns:
        The path that was written; the file appears whole or not at all.
    """
    target = _target(src, dst, container.EXTENSION)
    check_writable(target, force)
    source: Path | BinaryIO = Path(src)
    if is_special(Path(src)):
        source = io.BytesIO(Path(src).read_bytes())
    with atomic_writer(target, force) as file:
        write_encoded(source, file, codec, quality, device, metadata, progress=progress, **options)
    return target


def write_encoded(
    source: Path | BinaryIO,
    out: BinaryIO,
    codec: str | AnyCodec | None = None,
    quality: float | None = None,
    device: str | None = None,
    metadata: str = "auto",
    *,
    name: str | None = None,
    progress: Callable[[float, float], None] | None = None,
    steps: Callable[[float, float], None] | None = None,
    **options: Any,
) -> None:
    """Encode a file, or what an open seekable one holds, into an open file; arguments as `encode_file`, and ``steps``,
    called with steps of a search that are done and steps in all."""
    from . import targets
    from .api import default_codec, encode, loaded
    from .codecs.contract import check_options, modalities
    from .codecs.registry import owners
    from .signals.sound.files import holds_sound

    model: Any = loaded(default_codec(source) if codec is None else codec, device)
    kinds = modalities(model)
    target, rest = targets.taken({"quality": quality, **options})
    if "audio" in kinds and ("image" not in kinds or holds_sound(source)):
        from .signals.sound.files import encode_sound

        chosen = check_options(model, rest, owners)
        if target is None:
            encode_sound(source, out, model, chosen, metadata, progress, name)
            return

        def make(o: dict[str, Any]) -> bytes:
            buffer = io.BytesIO()
            if not isinstance(source, Path):
                source.seek(0)
            encode_sound(source, buffer, model, o, metadata, None, name)
            return buffer.getvalue()

        out.write(targets.reach(target, make, model, chosen))
        return
    if steps is not None and "progress" in {o.name for o in model.options}:
        options["progress"] = steps
    if not isinstance(source, Path):
        from .signals.pictures.files import open_picture
        from .signals.tensors.objects import read_array

        source = read_array(source) if "tensor" in kinds else open_picture(source, name)  # type: ignore[assignment]
    out.write(encode(source, model, quality, device, metadata, **options))


def decode_file(
    src: StrPath,
    dst: StrPath | None = None,
    *,
    to: str = "signal",
    region: tuple[int, int, int, int] | tuple[int, int] | None = None,
    span: tuple[float, float] | None = None,
    device: str | None = None,
    codec: AnyCodec | None = None,
    precision: Precision = "fp32",
    force: bool = False,
    progress: Callable[[float, float], None] | None = None,
) -> Path:
    """Decode a `.ltz` file to a picture, to a sound file, or to an array.

    Args:
        dst: the file to write; its extension chooses the format (what Pillow writes, a sound file, or ``.npy``). By
            default ``src`` as ``.png``, where PNG holds the signal in full, or ``.wav``. A folder means a file of that
            name in it.
        to: ``"latent"`` writes the integer latent, (L, h, w) or (rows, frames), as ``.npy``.
        region: (top, left, bottom, right) in pixels; of tensors (start, stop) along the first axis.
        span: of sound: (start, stop) in seconds.
        precision: as `decode`.
        force: replace an existing file.
        progress: of sound: is told the seconds done and in all.

    Returns:
        The path that was written; the file appears whole or not at all.
    """
    if to not in ("signal", "latent"):
        raise InputError(f"to is {to!r}; files are written from 'signal' or 'latent'")
    source: bytes | StrPath = Path(src).read_bytes() if is_special(Path(src)) else src
    if isinstance(source, bytes):
        header = container.read_header(source).header
    else:
        with open(source, "rb") as file:
            header = container.read_header(file).header
    target = _target(src, dst, ".npy" if to == "latent" else default_suffix(header))
    options = {"region": region, "span": span, "device": device, "codec": codec, "precision": precision}
    options["progress"] = progress
    with atomic_writer(target, force) as file:
        write_decoded(source, file, target.suffix, latent=to == "latent", **options)  # type: ignore[arg-type]
    return target


def _target(src: StrPath, dst: StrPath | None, suffix: str) -> Path:
    source = Path(src)
    if dst is None:
        return source.with_suffix(suffix)
    return Path(dst) / source.with_suffix(suffix).name if Path(dst).is_dir() else Path(dst)


def same_file(a: Path, b: Path) -> bool:
    """Whether two paths name one existing file."""
    with suppress(OSError):
        return os.path.samefile(a, b)
    return False
