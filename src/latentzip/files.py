"""Files: names of outputs, and writing that leaves either the whole file or nothing."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from . import signals
from .codecs.outputs import atomic_writer, check_writable, is_special
from .entropy import container
from .entropy.errors import InputError

if TYPE_CHECKING:
    from .codecs.contract import AnyCodec, NamedCodec
    from .codecs.precision import AnyPrecision
    from .signals.coding import ValueRange

StrPath = str | os.PathLike[str]


def write_decoded(
    source: bytes | StrPath,
    stream: BinaryIO,
    suffix: str,
    *,
    to: Literal["signal", "latent", "tokens"] = "signal",
    region: tuple[int, int, int, int] | tuple[int, int] | None = None,
    span: tuple[float, float] | None = None,
    device: str | None = None,
    codec: NamedCodec | AnyCodec | None = None,
    precision: AnyPrecision = "auto",
    progress: Callable[[float, float], None] | None = None,
) -> None:
    """Decode ``source``, bytes or a path, into an open file in the format of ``suffix``: ``.npy``, what Pillow writes
    under it, or a sound file, which is written piece by piece."""
    from .api import device_of, loaded, opened
    from .codecs.surroundings import plain
    from .signals.coding import Wanted

    wanted = Wanted(to, region, span, None, device_of(device), loaded(codec, device), precision)
    with plain(), opened(source) as box:
        coding = signals.of(box.header).coding
        if suffix.lower() == ".npy":
            import numpy as np

            np.save(stream, coding.array(box, wanted), allow_pickle=False)
        elif to != "signal":
            raise InputError(f"{to.removesuffix('s')}s are written as .npy, not {suffix or 'without extension'}")
        else:
            coding.write(box, stream, suffix, wanted, progress)


def encode_file(
    src: StrPath,
    dst: StrPath | None = None,
    codec: NamedCodec | AnyCodec | None = None,
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
    codec: NamedCodec | AnyCodec | None = None,
    quality: float | None = None,
    device: str | None = None,
    metadata: str = "auto",
    *,
    value_range: ValueRange = None,
    name: str | None = None,
    progress: Callable[[float, float], None] | None = None,
    steps: Callable[[float, float], None] | None = None,
    **options: Any,
) -> None:
    """Encode a file, or what an open seekable one holds, into an open file; arguments as `encode_file`, and ``steps``,
    called with steps of a search that are done and steps in all."""
    from . import targets
    from .api import ask
    from .codecs.surroundings import plain
    from .signals.coding import About

    about = About(metadata, value_range, name)
    with plain():
        asked = ask(source, codec, device, about, {"quality": quality, **options})
        if steps is not None and "progress" in {option.name for option in asked.model.options}:
            asked.options["progress"] = steps
        ready = asked.kind.coding.ready(source, asked.model, about)
        if asked.target is None:
            ready.write(out, asked.options, progress)
        else:
            out.write(targets.reach(asked.target, ready.encode, asked.model, asked.options, ready.psnr))


def decode_file(
    src: StrPath,
    dst: StrPath | None = None,
    *,
    to: Literal["signal", "latent", "tokens"] = "signal",
    region: tuple[int, int, int, int] | tuple[int, int] | None = None,
    span: tuple[float, float] | None = None,
    device: str | None = None,
    codec: NamedCodec | AnyCodec | None = None,
    precision: AnyPrecision = "auto",
    force: bool = False,
    progress: Callable[[float, float], None] | None = None,
) -> Path:
    """Decode a `.ltz` file to a picture, to a sound file, or to an array.

    Args:
        dst: the file to write; its extension chooses the format (what Pillow writes, a sound file, or ``.npy``). By
            default ``src`` as ``.png``, where PNG holds the signal in full, or ``.wav``. A folder means a file of that
            name in it.
        to: ``"latent"`` writes the integer latent, (L, h, w) or (rows, frames), as ``.npy``; ``"tokens"`` those of a
            codec that has them, uint16.
        region: (top, left, bottom, right) in pixels; of tensors (start, stop) along the first axis.
        span: of sound: (start, stop) in seconds.
        precision: as `decode`.
        force: replace an existing file.
        progress: of sound: is told the seconds done and in all.

    Returns:
        The path that was written; the file appears whole or not at all.
    """
    if to not in ("signal", "latent", "tokens"):
        raise InputError(f"to is {to!r}; files are written from 'signal', 'latent' or 'tokens'")
    source: bytes | StrPath = Path(src).read_bytes() if is_special(Path(src)) else src
    if isinstance(source, bytes):
        header = container.read_header(source).header
    else:
        with open(source, "rb") as file:
            header = container.read_header(file).header
    target = _target(src, dst, ".npy" if to != "signal" else signals.of(header).suffix(header))
    options = {"region": region, "span": span, "device": device, "codec": codec, "precision": precision}
    options["progress"] = progress
    with atomic_writer(target, force) as file:
        write_decoded(source, file, target.suffix, to=to, **options)  # type: ignore[arg-type]
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
