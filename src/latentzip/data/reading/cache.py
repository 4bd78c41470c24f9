"""The training tier: decoded latents of a pack (of tensors their values), derived and disposable.

Arrays of one shape lie in ``.npy`` files (samples, L, h, w), read through memory maps; ragged ones in files of zstd
(or zlib) records. A cache is keyed by the pack's manifest, so a pack that has changed never meets a stale one; deleting
it costs nothing but the time to make it again.
"""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ...entropy import schema
from ...entropy.arrays import map_array
from ...entropy.errors import FormatError, InputError, UnsupportedError
from ...entropy.numbers import whole
from ...entropy.opening import inflate, open_regular, read_file, zstd
from ..archive import Archive
from ..arguments import sample_numbers
from ..codec import codec_of
from ..locks import locked
from ..manifest import MAX_AXES, MAX_LATENT, MAX_MANIFEST
from ..modality import MODALITIES
from ..modality.base import Modality, Table
from ..places import write_bytes, write_file
from ..remote import cache_folder, here, is_remote
from ..shards import manifest_bytes, npy_bytes

FORMAT = "latentzip-cache"
VERSION = 1
DESCRIPTION = "cache.json"
RECORD_DTYPE = np.dtype([("offset", "<u8"), ("size", "<u4"), ("h", "<u4"), ("w", "<u4")])  # of pictures
_SHAPED_DTYPE = np.dtype([("offset", "<u8"), ("size", "<u4"), ("axes", "<u4"), ("shape", "<u4", (MAX_AXES,))])

_BATCH = 256  # samples decoded at a time
_ZSTD_LEVEL, _ZLIB_LEVEL = 3, 6
_MAX_SIDE = 1 << 16
_SIDE = schema.integer(1, _MAX_SIDE)
_LONG = schema.integer(0, 1 << 40)
_SCHEMA = schema.record({
    "pack": schema.text(r"[0-9a-f]{64}", 64), "shape": schema.nullable(schema.array(_LONG, MAX_AXES)),
    "channels": schema.nullable(_SIDE), "dtype": schema.one_of("|i1", "<i2", "<u2", "<f2", "<f4"),
    "variants": schema.one_of(1, 2),
    "compression": schema.one_of(None, "zstd", "zlib"),
    "shards": schema.array(schema.record({
        "samples": schema.integer(0, 1 << 32),
        "files": schema.array(schema.text(schema.PLAIN_NAME, 210), 2, 1),
    }), 1 << 22),
})  # fmt: skip


def default_folder(archive: Archive) -> Path:
    """Where the cache of a pack lies unless told otherwise: inside it; in the user's cache folder if it is remote."""
    key = hashlib.sha256(f"{FORMAT} {VERSION} {archive.manifest_sha256}".encode()).hexdigest()[:16]
    return (cache_folder() if is_remote(archive.path) else Path(archive.path, ".cache")) / key


def find_cache(archive: Archive) -> Path | None:
    """The finished cache of a pack in its default place, None where there is none."""
    folder = default_folder(archive)
    return folder if (folder / DESCRIPTION).is_file() else None


# --- making ------------------------------------------------------------------------------------------------------


def check_latents(archive: Archive, stream: str = "") -> None:
    """Raises InputError where a stream of a pack holds signals as they are."""
    facts = archive.facts(stream)
    if facts["latent"] is None:
        noun = "of the stream " + stream if stream else MODALITIES[facts["modality"]].noun
        raise InputError(
            f"{archive.path} holds {noun} of {facts['codec']}, which has no latents; read it with "
            "LatentDataset(..., to='signal') or to='bytes'"
        )


def build_cache(
    pack: str | os.PathLike[str] | Archive,
    out: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Cache:
    """Decode a pack's latents, or the values of its tensors, into a training tier; what is there already is kept.

    Of packs with several streams a sample it is that of the first one.

    Processes that ask for the same cache at the same time wait for the first one.

    Args:
        out: folder; by default ``.cache`` inside the pack (the user's cache folder for remote packs).
        threads: for entropy decoding; by default one a core.
        progress: called with (latents done, latents in all).

    Raises:
        InputError: ``out`` holds the cache of another pack, or the pack has no latents.
        FormatError: the pack is damaged.
        OSError: the folder cannot be written; name another with ``out``.
    """
    threads = None if threads is None else whole("threads", threads, 1)
    archive = pack if isinstance(pack, Archive) else Archive(pack)
    if table_of(archive) is None:
        check_latents(archive)
    folder = default_folder(archive) if out is None else Path(here(os.fspath(out), "caches are made"))
    if (folder / DESCRIPTION).is_file():
        return Cache(folder, archive)
    owner = folder / ".pack"
    used = folder.exists() and any(not p.name.endswith(".part") and p.name != ".lock" for p in folder.iterdir())
    # asked last: another process may begin meanwhile, and writes this first
    begun = owner.is_file() and owner.read_text() == archive.manifest_sha256
    if used and not begun:
        raise InputError(f"{folder} is not empty and holds no cache of this pack; name another folder or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        if not (folder / DESCRIPTION).is_file():
            write_bytes(owner, archive.manifest_sha256.encode())
            _fill(folder, archive, threads or os.cpu_count() or 1, progress or (lambda done, total: None))
    return Cache(folder, archive)


def _fill(folder: Path, archive: Archive, threads: int, progress: Callable[[int, int], None]) -> None:
    """Make the files that are missing, then the description."""
    manifest = archive.manifest
    codec, kind, table = codec_of(archive), MODALITIES[manifest["modality"]], table_of(archive)
    assert table is not None
    fixed = None if table.shape is None else list(table.shape)
    dtype = dtype_of(table)
    channels = (manifest["latent"] or {}).get("channels")
    compress, compression = _compressor() if fixed is None else (None, None)
    total, done = len(archive) * archive.variants, 0
    shards: list[dict[str, Any]] = []
    for number, shard in enumerate(manifest["shards"]):
        files = [file_name(shard["file"], variant, fixed is not None) for variant in range(archive.variants)]
        for variant, name in enumerate(files):
            if not (folder / name).exists():
                batches = _decoded(archive, number, variant, kind, codec, threads, dtype)
                if fixed is not None:
                    _write_array(folder / name, batches, (shard["samples"], *fixed), dtype)
                elif compress is not None:
                    _write_records(folder / name, batches, compress, channels is not None)
            done += shard["samples"]
            progress(done, total)
        shards.append({"samples": shard["samples"], "files": files})
    description = {
        "format": FORMAT,
        "version": VERSION,
        "pack": archive.manifest_sha256,
        "shape": fixed,
        "channels": channels,
        "dtype": dtype.str,
        "variants": archive.variants,
        "compression": compression,
        "shards": shards,
    }
    write_bytes(folder / DESCRIPTION, manifest_bytes(description))


def file_name(shard: str, variant: int, fixed: bool) -> str:
    """``00000.tar`` -> ``00000.npy`` or ``00000.mirror.rec``."""
    return shard.removesuffix(".tar") + (".mirror" if variant else "") + (".npy" if fixed else ".rec")


def table_of(archive: Archive) -> Table | None:
    """What the training tier of a pack holds; None where it has none."""
    return MODALITIES[archive.manifest["modality"]].table(archive.manifest)


def dtype_of(table: Table) -> np.dtype:
    """Of the arrays of a training tier.

    Raises:
        InputError: tensors of several dtypes.
    """
    if table.dtype is None:
        raise InputError("tensors of several dtypes have no training tier; pack each dtype on its own")
    return np.dtype({"int8": "|i1", "int16": "<i2", "float16": "<f2", "float32": "<f4", "bfloat16": "<u2"}[table.dtype])


def _decoded(
    archive: Archive, shard: int, variant: int, kind: Modality, codec: Any, threads: int, dtype: np.dtype
) -> Iterator[Any]:
    """Arrays of one shard in batches, as lists."""
    first, last = int(archive.starts[shard]), int(archive.starts[shard + 1])
    for begin in range(first, last, _BATCH):
        blobs = archive.read_many(np.arange(begin, min(begin + _BATCH, last)), variant)
        arrays = kind.arrays(blobs, codec, threads, Table(None, None))
        yield [np.ascontiguousarray(z, dtype).reshape(z.shape) for z in arrays]


def _write_array(path: Path, batches: Iterator[Any], shape: tuple[int, ...], dtype: np.dtype) -> None:
    def write(file: BinaryIO) -> None:
        # written, not mapped: a full disk is then an error and not a crash
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for batch in batches:
            for latent in batch:
                if latent.shape != shape[1:]:
                    raise FormatError(f"a latent of shape {latent.shape} in a pack of {shape[1:]}: damaged manifest")
                file.write(latent.data)

    _atomically(path, write)


def _write_records(path: Path, batches: Iterator[Any], pack: Callable[[bytes], bytes], pictures: bool) -> None:
    rows: list[tuple[Any, ...]] = []

    def write(file: BinaryIO) -> None:
        at = 0
        for batch in batches:
            for latent in batch:
                record = pack(latent.tobytes())
                file.write(record)
                shape = latent.shape
                padded = (*shape, *(0,) * (MAX_AXES - len(shape)))
                rows.append((at, len(record), *shape[1:]) if pictures else (at, len(record), len(shape), padded))
                at += len(record)
        index = np.array(rows, RECORD_DTYPE if pictures else _SHAPED_DTYPE)
        write_bytes(path.with_name(path.name + ".npy"), npy_bytes(index))

    _atomically(path, write)


def _atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    for stale in path.parent.glob(f".{path.name}.*.part"):
        stale.unlink(missing_ok=True)
    write_file(path, write)


def _compressor() -> tuple[Callable[[bytes], bytes], str]:
    try:
        import zstandard
    except ImportError:
        return lambda data: zlib.compress(data, _ZLIB_LEVEL), "zlib"
    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress, "zstd"


# --- reading -----------------------------------------------------------------------------------------------------


class Cache:
    """Decoded latents (of tensors: values) of a pack, by sample number. Safe in threads, after a fork, when pickled.

    Args:
        path: a folder that `build_cache` made.
        archive: the pack; a cache of another one is refused.

    Attributes:
        shape: (L, h, w) of every latent, of sound (rows, frames), of tensors theirs; None where they differ.
        dtype: int8 or int16 of latents; float16 or float32 of tensors, uint16 of the bits of bfloat16.
        variants: 2 where mirrored twins are there, else 1.

    Raises:
        FormatError: no cache, a damaged one, or that of another pack.
    """

    def __init__(self, path: str | os.PathLike[str], archive: Archive | None = None) -> None:
        self.path = os.fspath(path)
        self._open(None if archive is None else archive.manifest_sha256)

    def _open(self, expected: str | None) -> None:
        where = os.path.join(self.path, DESCRIPTION)
        try:
            data = read_file(where, MAX_MANIFEST)
        except OSError as error:
            raise FormatError(f"{where}: no description of a cache: {error}") from None
        facts = schema.parse(data, where, schema.record({}), MAX_MANIFEST)
        if (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
            raise FormatError(f"{where}: made by another version of latentzip; delete the folder and make it again")
        facts = _SCHEMA(facts, f"{where}: damaged, delete the folder and make the cache again: ")
        self._pack: str = facts["pack"]
        self.shape: tuple[int, ...] | None = None if facts["shape"] is None else tuple(facts["shape"])
        self.dtype, self.variants, self._channels = np.dtype(facts["dtype"]), facts["variants"], facts["channels"]
        self._compression = facts["compression"]
        counts = [shard["samples"] for shard in facts["shards"]]
        files = [shard["files"] for shard in facts["shards"]]
        sound = all(len(f) == self.variants for f in files) and (self._compression is None) != (self.shape is None)
        if self.shape is not None:
            sound = sound and math.prod(self.shape) <= MAX_LATENT
            sound = sound and (self._channels is None or self.shape[:1] == (self._channels,))
        if not sound:
            raise FormatError(f"{where}: damaged; delete the folder and make the cache again")
        if expected is not None and expected != self._pack:
            raise FormatError(f"{self.path}: the cache of another pack, or of this one before it changed; delete it")
        self.starts = np.concatenate([[0], np.cumsum(np.array(counts, np.int64))]).astype(np.int64)
        load = self._map_array if self.shape is not None else self._map_records
        self._maps = [[load(f[v], n) for f, n in zip(files, counts)] for v in range(self.variants)]

    def _map_array(self, name: str, samples: int) -> Any:
        assert self.shape is not None
        array = self._load(name, self.dtype, (samples, *self.shape))
        return array.reshape(-1).view(np.uint8).data  # rows are copied twice as fast as between arrays

    def _map_records(self, name: str, samples: int) -> Any:
        rows = self._load(name + ".npy", RECORD_DTYPE if self._channels is not None else _SHAPED_DTYPE, (samples,))
        try:
            with os.fdopen(open_regular(os.path.join(self.path, name)), "rb") as file:
                empty = not os.fstat(file.fileno()).st_size
                data = np.empty(0, np.uint8) if empty else np.memmap(file, np.uint8, "r").view(np.ndarray)
        except OSError as error:
            raise FormatError(f"{self.path}/{name}: {error}; delete the cache and make it again") from None
        return data, rows

    def _load(self, name: str, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        path = os.path.join(self.path, name)
        try:
            return map_array(path, dtype, shape)
        except (OSError, FormatError) as error:
            raise FormatError(f"{path}: {error}; delete the cache and make it again") from None

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __repr__(self) -> str:
        return f"Cache({self.path!r}, samples={len(self)}, shape={self.shape})"

    def __getstate__(self) -> tuple[str, str]:
        return self.path, self._pack

    def __setstate__(self, state: tuple[str, str]) -> None:
        self.path, pack = state
        self._open(pack)

    def read(self, i: int, variant: int = 0) -> np.ndarray:
        """The latent (L, h, w) of sample ``i``; negative numbers count from the end."""
        return np.asarray(self.gather([i], variant)[0])

    def gather(
        self,
        indices: Sequence[int] | np.ndarray,
        variant: int | Sequence[int] | np.ndarray = 0,
        out: np.ndarray | None = None,
    ) -> Any:
        """Latents of several samples, in the order of ``indices``.

        Args:
            variant: 0 as packed, 1 the mirrored twin; one number, or one a sample.
            out: (B, L, h, w) of `dtype`, C-contiguous, to fill; for latents of one shape.

        Returns:
            (B, L, h, w), ``out`` if it was given; a list of (L, h, w) where shapes differ.

        Raises:
            IndexError: a number out of range.
            InputError: a mirrored twin that is not there, or an unsuitable ``out``.
            FormatError: a damaged record.
        """
        numbers = sample_numbers(indices, len(self), "a cache")
        low, high = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, -1)
        chosen = np.asarray(variant)
        if chosen.size and not (int(chosen.min()) >= 0 and int(chosen.max()) < self.variants):
            raise InputError(
                f"variant {int(chosen.max())} of a cache with {self.variants}; mirrored twins: pack --mirror"
            )
        if self.shape is None and out is not None:
            raise InputError("latents of different shapes do not fit into one array; leave out away")
        if self.shape is not None and out is None and chosen.ndim == 0 and 0 <= low <= high:
            shard = int(np.searchsorted(self.starts, low, side="right")) - 1
            if high < self.starts[shard + 1]:  # all from one file: numpy's own gather beats the loop below
                rows = np.frombuffer(self._maps[int(chosen)][shard], self.dtype).reshape(-1, *self.shape)
                return rows[numbers - self.starts[shard]] if self.starts[shard] else rows[numbers]
        chosen = np.broadcast_to(chosen, numbers.shape)
        if self.shape is None:
            return [self._record(i, v) for i, v in zip(numbers.tolist(), chosen.tolist())]
        shape = (len(numbers), *self.shape)
        if out is None:
            out = np.empty(shape, self.dtype)
        elif out.shape != shape or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise InputError(f"out is {out.dtype}{out.shape}; a C-contiguous {self.dtype}{shape} is needed")
        shards = np.searchsorted(self.starts, numbers, side="right") - 1
        size = math.prod(self.shape) * self.dtype.itemsize
        begins = ((numbers - self.starts[shards]) * size).tolist()
        target, maps = out.reshape(-1).view(np.uint8).data, self._maps
        at = 0
        for v, shard, begin in zip(chosen.tolist(), shards.tolist(), begins):
            target[at : at + size] = maps[v][shard][begin : begin + size]
            at += size
        return out

    def _record(self, i: int, variant: int) -> np.ndarray:
        shard = int(np.searchsorted(self.starts, i, side="right")) - 1
        data, rows = self._maps[variant][shard]
        row, where = rows[i - int(self.starts[shard])].tolist(), f"{self.path}: record of sample {i}"
        offset, size, *sides = row
        shape = (self._channels, *sides) if self._channels is not None else tuple(sides[1][: sides[0]])
        values = math.prod(shape)
        if offset + size > len(data) or values > MAX_LATENT:
            raise FormatError(f"{where} lies outside its file; delete the cache and make it again")
        raw = self._unpack(data[offset : offset + size].tobytes(), values * self.dtype.itemsize, where)
        return np.frombuffer(bytearray(raw), self.dtype).reshape(shape)

    def _unpack(self, record: bytes, length: int, where: str) -> bytes | bytearray:
        try:
            return inflate(record, length) if self._compression == "zlib" else zstd(record, length)
        except ImportError as error:
            raise UnsupportedError(f"{self.path} is compressed with zstd: pip install latentzip[data]") from error
        except FormatError as error:
            raise FormatError(f"{where}: {error}; delete the cache and make it again") from None
