"""Files: names of outputs, and writing that leaves either the whole file or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .entropy import container
from .entropy.errors import InputError

if TYPE_CHECKING:
    from .codecs.base import Codec, Precision
    from .codecs.features import FeatureCodec
    from .entropy.container import Header

StrPath = str | os.PathLike[str]

# what a folder is searched for; files named one by one are recognised by their content
PICTURE_SUFFIXES = frozenset({
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif", ".ppm", ".pgm"),
    *(".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".avif", ".tga", ".qoi", ".ico", ".heic", ".heif", ".hif", ".jxl"),
})  # fmt: skip


@contextmanager
def atomic_writer(path: StrPath, force: bool = False) -> Iterator[BinaryIO]:
    """An open binary file that becomes ``path`` when the block ends, and vanishes when it raises.

    Raises:
        InputError: ``path`` exists and ``force`` is False, or is a folder.
        OSError: the folder cannot be written to.
    """
    target = Path(path)
    check_writable(target, force)
    part = target.with_name(f".{target.name[:200]}.{os.getpid()}.part")
    try:
        with open(part, "xb") as file:
            yield file
        check_writable(target, force)  # someone else may have written it meanwhile
        os.replace(part, target)
    except BaseException:  # interrupts included: nothing half-written stays
        with suppress(OSError):
            part.unlink()
        raise


def check_writable(path: Path, force: bool) -> None:
    """Raises InputError when ``path`` is a folder, or exists and is not to be replaced."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    if not force and path.exists():
        raise InputError(f"{path} exists already; choose another name, or replace it with force (--force)")
    if not path.parent.is_dir():
        raise InputError(f"the folder {path.parent} does not exist; create it first")


def default_suffix(header: Header) -> str:
    """Extension under which a stream is decoded: the plainest format that holds its signal in full."""
    if header.mode == "F":
        return ".tif"
    deep = header.dtype != "uint8" and header.kind != "pil"
    if header.modality != "image" or not header.mode or (deep and header.mode not in ("L", "L;1")):
        return ".npy"
    return ".npy" if deep and header.dtype != "uint16" else ".png"


def write_decoded(
    blob: bytes,
    stream: BinaryIO,
    suffix: str,
    *,
    latent: bool = False,
    region: tuple[int, int, int, int] | tuple[int, int] | None = None,
    device: str | None = None,
    codec: Codec | FeatureCodec | None = None,
    precision: Precision = "fp32",
) -> None:
    """Decode ``blob`` into an open file in the format of ``suffix``: ``.npy``, or what Pillow writes under it."""
    from .api import decode

    if latent or suffix.lower() == ".npy":
        if suffix.lower() != ".npy":
            raise InputError(f"latents are written as .npy, not {suffix or 'without extension'}")
        import numpy as np

        header = container.read_header(blob).header
        if header.dtype == "bfloat16" and header.modality == "tensor":
            from .warn import converted

            converted("bfloat16 values are written as float32: .npy has no bfloat16")
        value = decode(blob, "latent" if latent else "numpy", region, device, codec=codec, precision=precision)
        np.save(stream, value.numpy() if latent else value, allow_pickle=False)
        return
    from .images import check_suffix, save_picture
    from .warn import converted

    check_suffix(suffix)
    if container.read_header(blob).header.modality == "tensor":
        raise InputError(f"a tensor is written as .npy, not {suffix}")
    header = container.read_header(blob).header
    if header.mode != "F" and default_suffix(header) == ".npy":
        converted(f"{header.dtype} samples are rounded to 8 bits for {suffix}; .npy keeps them in full")
    save_picture(decode(blob, "pil", region, device, codec=codec, precision=precision), stream, suffix)


def encode_file(
    src: StrPath,
    dst: StrPath | None = None,
    codec: str | Codec | FeatureCodec | None = None,
    quality: float | None = None,
    device: str | None = None,
    metadata: str = "auto",
    force: bool = False,
    **goal: Any,
) -> Path:
    """Encode a picture file (or an array in a ``.npy`` file) to a `.ltz` file.

    Args:
        dst: the file to write; by default ``src`` with the extension ``.ltz``. A folder: a file of that name in it.
        codec, quality, device, metadata: as `encode`.
        force: replace an existing file.
        goal: further arguments of `encode`, by name.

    Returns:
        The path that was written; the file appears whole or not at all.
    """
    from . import DEFAULT_CODEC
    from .api import encode

    target = _target(src, dst, container.EXTENSION)
    check_writable(target, force)
    blob = encode(Path(src), codec or DEFAULT_CODEC, quality, device, metadata, **goal)
    with atomic_writer(target, force) as file:
        file.write(blob)
    return target


def decode_file(
    src: StrPath,
    dst: StrPath | None = None,
    *,
    to: str = "signal",
    region: tuple[int, int, int, int] | tuple[int, int] | None = None,
    device: str | None = None,
    codec: Codec | FeatureCodec | None = None,
    precision: Precision = "fp32",
    force: bool = False,
) -> Path:
    """Decode a `.ltz` file to a picture, or to an array.

    Args:
        dst: the file to write; its extension chooses the format (what Pillow writes, or ``.npy``). By default
            ``src`` as ``.png``, where PNG holds the signal in full. A folder means a file of that name in it.
        to: ``"latent"`` writes the integer latent (L, h, w) as ``.npy``.
        region: (top, left, bottom, right) in pixels; of tensors (start, stop) along the first axis.
        precision: as `decode`.
        force: replace an existing file.

    Returns:
        The path that was written; the file appears whole or not at all.
    """
    if to not in ("signal", "latent"):
        raise InputError(f"to is {to!r}; files are written from 'signal' or 'latent'")
    blob = Path(src).read_bytes()
    header = container.read_header(blob).header
    target = _target(src, dst, ".npy" if to == "latent" else default_suffix(header))
    options = {"region": region, "device": device, "codec": codec, "precision": precision}
    with atomic_writer(target, force) as file:
        write_decoded(blob, file, target.suffix, latent=to == "latent", **options)  # type: ignore[arg-type]
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
