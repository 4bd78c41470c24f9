"""The entropy coder on a GPU: many chunks at once, the same bytes as on the CPU.

A chunk is what `ans` describes, whoever wrote it. On a GPU the streams of all chunks run side by side, so speed comes
from batches: frames, tiles, records. Headers are read and written on the host; symbols and table indices never leave
the device, and each direction copies the compressed bytes once.

    encoder = BatchEncoder(len(symbols))
    encoder.table(symbols, bank, index)              # (chunks, n) CUDA tensors
    blobs = encoder.finish()
    decoder = BatchDecoder(blobs)
    symbols = decoder.table(bank, index)
    decoder.finish()

Needs Triton. Mixtures and raw integers have no GPU body: code those on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from .. import ans
from ..coder import SAMPLES
from ..contract import Model
from ..errors import FormatError, InputError, UnsupportedError
from ..models import TableModel
from ..tables import TableBank

kernels: Any = None
with suppress(ImportError):  # `_check_device` says what is missing
    from . import kernels

_LANES = 32  # of a program: one warp, so that nothing in a step waits for another warp
_BLOCK = 256


class _Tables(NamedTuple):
    """A bank on a device."""

    lut: Tensor
    entries: Tensor
    rows: Tensor
    pack: Tensor
    buckets: Tensor
    reciprocals: Tensor


@lru_cache(maxsize=32)
def _tables(bank: TableBank, device: torch.device) -> _Tables:
    none = np.zeros(1, np.uint8)
    lut, entries = (bank.lut, bank.entries.view(np.int64)) if bank.has_lut else (none, none.astype(np.int64))
    scaled = (bank.freq.astype(np.int64) << (24 - bank.precision)).tolist()
    reciprocals = np.array([(1 << 64) // f for f in scaled], np.int64)
    arrays = (lut, entries, bank.rows, bank.pack.view(np.int32), bank.buckets.view(np.int16), reciprocals)
    # inference tensors in this cache could not take part in later work
    with torch.inference_mode(False):
        return _Tables(*(torch.tensor(a, device=device) for a in arrays))


class BatchDecoder:
    """Chunks in, integers out, in the order in which they were encoded: `coder.Decoder` for many chunks.

    Args:
        blobs: one entropy-coded chunk each, of any numbers of streams.
        device: a CUDA device.

    Raises:
        FormatError: some bytes are no chunk. Every read is bounded; `finish` tells whether the symbols can be trusted.
        UnsupportedError: the device cannot run Triton.
    """

    def __init__(self, blobs: Sequence[bytes | bytearray | memoryview], device: torch.device | str = "cuda") -> None:
        self.device = _check_device(device)
        sections = [_of_chunk(i, ans.unpack, blob) for i, blob in enumerate(blobs)]
        streams = np.array([s.counts.size for s in sections], np.int64)
        sides = np.array([bool(s.raw or s.escapes) for s in sections])
        away = [_of_chunk(i, _escape_values, s.escapes) for i, s in enumerate(sections)]
        counts = np.concatenate([s.counts for s in sections]) if sections else np.zeros(0, np.int64)
        words = np.concatenate([np.zeros(1, np.uint32), *(s.words for s in sections)])  # reads go before they check
        end = np.cumsum(counts) + 1
        taken = np.minimum(counts, 2)
        high, low = words[end - 1].astype(np.uint64), words[np.maximum(end - 2, 0)].astype(np.uint64)
        state = np.where(taken == 2, high << np.uint64(32) | low, np.where(taken == 1, high, np.uint64(0)))
        raw = [s.raw + bytes(-len(s.raw) % 4) for s in sections]
        raw_words = np.array([len(r) // 4 for r in raw], np.int64)
        raw_at = 32 * (np.cumsum(raw_words) - raw_words)
        escape_count = np.array([a.size for a in away], np.int64)
        escape_end = np.cumsum(escape_count)
        order, self._launches = _launches(streams, sides)
        chunks = len(sections)
        (
            self._words, self._state, self._ptr, self._begin, self._lane0, self._phase, self._raw, self._raw_at,
            self._raw_end, self._escapes, self._escape_at, self._escape_end, self._order, self._notes,
        ) = _upload(
            self.device,
            words.view(np.int32), state.view(np.int64), end - taken, end - counts,
            (np.cumsum(streams) - streams).astype(np.int32), np.zeros(chunks, np.int64),
            np.frombuffer(b"".join(raw) + bytes(8), np.int32), raw_at,
            raw_at + 8 * np.array([len(s.raw) for s in sections], np.int64),
            np.concatenate([*away, np.zeros(1, np.int32)]), escape_end - escape_count, escape_end,
            order, np.zeros(chunks, np.int32),
        )  # fmt: skip
        self.chunks = chunks

    def table(self, bank: TableBank, index: Tensor, first: Tensor | None = None, count: Tensor | None = None) -> Tensor:
        """The next symbols of every chunk under indexed tables.

        Args:
            index: table numbers, uint8 or int32: (chunks, n), or flat with ``first`` and ``count``.
            first: (chunks,) int64, where each chunk's symbols begin in a flat ``index``.
            count: (chunks,) int32, how many symbols each chunk has; with a (chunks, n) index the first ones of each
                row. Both lie on the device; nothing waits for them.

        Returns:
            int32, as ``index``; zero where there is no symbol.
        """
        index, first, count = _layout(self.chunks, index, first, count)
        out = torch.zeros(index.shape, dtype=torch.int32, device=index.device)
        if not index.numel():
            return out
        t = _tables(bank, self.device)
        with _on(self.device):
            for streams, start, slots, sides in self._launches:
                group = max(1, _LANES // streams)
                kernels.decode_kernel[(-(-slots // group),)](
                    self._words, self._state, self._ptr, self._begin, self._order[start:], self._lane0, self._phase,
                    self._raw, self._raw_at, self._raw_end, self._escapes, self._escape_at, self._escape_end,
                    self._notes, index, first, count, out, t.lut, t.entries, t.rows, t.pack, t.buckets, slots,
                    bank.num_tables, K=streams, GROUP=group, PRECISION=bank.precision, BUCKET_BITS=bank.bucket_bits,
                    SEARCH=not bank.has_lut, SIDES=sides, num_warps=max(1, streams // _LANES),
                )  # fmt: skip
        self._phase += count
        return out

    def finish(self) -> None:
        """Check that every chunk was decoded to its end; waits for the device.

        Raises:
            FormatError: a chunk is corrupt or of another model.
            InputError: a table index was out of range.
        """
        chunk_of = torch.repeat_interleave(
            torch.arange(self.chunks, device=self.device),
            torch.diff(self._lane0, append=self._lane0.new_tensor([self._ptr.numel()])),
            output_size=self._ptr.numel(),
        )
        open_lanes = ((self._ptr != self._begin) | (self._state != 0)).to(torch.int32)
        left = torch.zeros_like(self._notes).index_add_(0, chunk_of, open_lanes)
        padding = self._raw[self._raw_at >> 5] >> (self._raw_at & 31)
        # arithmetic shifts of an int32 fill with ones: those are not padding
        padding &= (1 << (32 - (self._raw_at & 31))) - 1
        beside = (((self._raw_at + 7) >> 3 << 3) != self._raw_end) | (self._escape_at != self._escape_end)
        beside |= (self._raw_at & 7 != 0) & (padding != 0)
        notes, left, beside = torch.stack((self._notes, left, beside.to(torch.int32))).cpu().tolist()
        for c in range(self.chunks):
            if notes[c] & kernels.BAD_INDEX:
                raise InputError(f"a table index of chunk {c} is outside the bank")
            if notes[c]:
                what = "raw" if notes[c] & kernels.RAW_END else "escape"
                raise FormatError(f"chunk {c}: the {what} section ends early: it is corrupt or of another model")
            if left[c] or beside[c]:
                what = f"{left[c]} streams open" if left[c] else "side bytes left over"
                raise FormatError(f"chunk {c} did not end where it should ({what}): it is corrupt or of another model")


class _Segment(NamedTuple):
    symbols: Tensor
    bank: TableBank
    index: Tensor
    first: Tensor
    count: Tensor
    limit: int
    phase: Tensor


class BatchEncoder:
    """Integers in, one entropy-coded chunk each out: `coder.Encoder` for many chunks, byte for byte.

    Args:
        chunks: how many.
        streams: of every chunk, a power of two in 1..64; by default chosen for each from its payload, as on the CPU.
        device: a CUDA device.

    Raises:
        UnsupportedError: the device cannot run Triton.
    """

    def __init__(self, chunks: int, streams: int | None = None, device: torch.device | str = "cuda") -> None:
        if streams is not None and streams not in (1, 2, 4, 8, 16, 32, 64):
            raise InputError(f"streams must be a power of two in 1..64, not {streams}")
        self.device = _check_device(device)
        self.chunks, self._streams = chunks, streams
        self._segments: list[_Segment] = []
        self._coded = torch.zeros(chunks, dtype=torch.int64, device=self.device)

    def table(
        self,
        symbols: Tensor,
        bank: TableBank,
        index: Tensor,
        first: Tensor | None = None,
        count: Tensor | None = None,
        limit: int | None = None,
    ) -> None:
        """Append symbols of every chunk; arguments as in `BatchDecoder.table`.

        Args:
            limit: most symbols that a chunk can have, for memory to be set aside; by default the row or the whole of
                a flat ``index``.

        Nothing is coded before `finish`: the tensors must not change until then.

        Raises:
            InputError: symbols are no integers, or of another shape than their index.
        """
        if symbols.shape != index.shape:
            raise InputError(f"symbols have shape {tuple(symbols.shape)}, their index has {tuple(index.shape)}")
        if symbols.is_floating_point() or symbols.is_complex():
            raise InputError(f"symbols must be integers, not {symbols.dtype}: round them before coding")
        if limit is None:
            limit = index.shape[-1] if first is None else index.numel()
        index, first, count = _layout(self.chunks, index, first, count)
        if index.numel():
            x = symbols.to(torch.int32).contiguous()
            self._segments.append(_Segment(x, bank, index, first, count, limit, self._coded))
            self._coded = self._coded + count

    def finish(self) -> list[bytes]:
        """The chunks. Waits for the device twice: for sizes, then for the bytes.

        Raises:
            InputError: a table index was out of range.
        """
        if not self.chunks:
            return []
        with _on(self.device):
            return self._finish()

    def _finish(self) -> list[bytes]:
        notes, raw, escapes, raw_bits, escape_count = self._sides()
        streams = np.full(self.chunks, self._streams or 1, np.int64)
        if self._streams is None:
            estimate = self._estimate()
            streams = np.array([1 << ans.choose_log_streams(int(bits) >> 11) for bits in estimate.tolist()], np.int64)
        words, home, used = self._push(streams)
        # one small copy of sizes, one of everything else
        lanes = used.numel()
        sizes = torch.cat((used, (raw_bits + 31) >> 5, escape_count, raw_bits, notes.long())).cpu().numpy()
        used_, raw_words, away, bits, bad = np.split(sizes, lanes + self.chunks * np.arange(4))
        if bad.any():
            raise InputError(f"a table index of chunk {int(np.flatnonzero(bad)[0])} is outside its bank")
        parts = [(words, home, used_)]
        for buffer, size in ((raw, raw_words), (escapes, away)):
            step = buffer.numel() // self.chunks
            parts.append((buffer, torch.arange(self.chunks, device=self.device) * step, size))
        flat = _gather(parts)
        words_, raw_, away_ = np.split(flat, np.cumsum([used_.sum(), raw_words.sum()]))
        values = away_.astype(np.int64)
        zigzag = ((values << 1) ^ (values >> 63)).astype(np.uint32)
        blobs = []
        lane, word, raw_word, escape = 0, 0, 0, 0
        for c, k in enumerate(streams.tolist()):
            counts = used_[lane : lane + k]
            n = int(counts.sum())
            side = raw_[raw_word : raw_word + raw_words[c]].astype("<i4").tobytes()[: (int(bits[c]) + 7) >> 3]
            leb = ans.leb128(zigzag[escape : escape + away[c]]) if away[c] else b""
            blobs.append(ans.pack(ans.Sections(words_[word : word + n].view(np.uint32), counts, side, leb)))
            lane, word, raw_word, escape = lane + k, word + n, raw_word + int(raw_words[c]), escape + int(away[c])
        return blobs

    def _zeros(self, n: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.zeros(n, dtype=dtype, device=self.device)

    def _sides(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Notes, raw words, escaped integers, and the raw bits and escapes of each chunk."""
        n = self.chunks
        raw_step = (sum(s.limit * s.bank.max_raw_bits for s in self._segments) >> 5) + 2
        away_step = max(1, sum(s.limit for s in self._segments))
        raw, escapes = (
            self._zeros(n * raw_step, torch.int32),
            torch.empty(n * away_step, dtype=torch.int32, device=self.device),
        )
        raw_first, escape_first = (torch.arange(n, device=self.device) * step for step in (raw_step, away_step))
        raw_at, escape_at, notes = self._zeros(n), self._zeros(n), self._zeros(n, torch.int32)
        for s in self._segments:
            kernels.sides_kernel[(n,)](
                s.symbols, s.index, s.first, s.count, _tables(s.bank, self.device).rows, raw, raw_first, raw_at,
                escapes, escape_first, escape_at, notes, s.bank.num_tables, BLOCK=_BLOCK, num_warps=2,
            )  # fmt: skip
        return notes, raw, escapes, raw_at, escape_at

    def _estimate(self) -> Tensor:
        """What `estimate_bits` of the CPU's engine says of each chunk."""
        every = (self._coded // SAMPLES).clamp(min=1)
        total, run_start = self._zeros(self.chunks), self._zeros(self.chunks)
        part, seen = self._zeros(self.chunks), self._zeros(self.chunks)
        for i, s in enumerate(self._segments):
            kernels.estimate_kernel[(self.chunks,)](
                s.symbols, s.index, s.first, s.count, s.phase - run_start, every, _tables(s.bank, self.device).rows,
                _tables(s.bank, self.device).pack, part, seen, s.bank.num_tables, PRECISION=s.bank.precision,
                BLOCK=_BLOCK, num_warps=2,
            )  # fmt: skip
            # segments of one precision are one run there
            if i + 1 == len(self._segments) or self._segments[i + 1].bank.precision != s.bank.precision:
                end = s.phase + s.count
                total += part * (end - run_start) // seen.clamp(min=1)
                run_start, part, seen = end, self._zeros(self.chunks), self._zeros(self.chunks)
        return total.cpu()

    def _push(self, streams: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Words, where those of each lane begin, and how many each lane has."""
        order_, launches = _launches(streams, np.zeros(self.chunks, bool))
        # a symbol takes at most its precision in bits; two words hold a final state, two are slack
        bits = sum((-(-s.limit // streams) + 1) * s.bank.precision for s in self._segments)
        room = np.repeat((bits + np.zeros_like(streams)) // 32 + 4, streams)
        lane0 = (np.cumsum(streams) - streams).astype(np.int32)
        order, lane0, home = _upload(self.device, order_, lane0, np.cumsum(room) - room)
        words = torch.empty(int(room.sum()), dtype=torch.int32, device=self.device)
        state, used = self._zeros(room.size), self._zeros(room.size)
        for s in reversed(self._segments):
            t = _tables(s.bank, self.device)
            for k, start, slots, _ in launches:
                group = max(1, _LANES // k)
                kernels.encode_kernel[(-(-slots // group),)](
                    s.symbols, s.index, s.first, s.count, s.phase, order[start:], lane0, state, used, words, home,
                    t.rows, t.pack, t.reciprocals, slots, s.bank.num_tables, K=k, GROUP=group,
                    PRECISION=s.bank.precision, LAST=s is self._segments[0], num_warps=max(1, k // _LANES),
                )  # fmt: skip
        return words, home, used


def encode_batch(
    items: Sequence[Iterable[tuple[Tensor, Model]]], streams: int | None = None, device: torch.device | str = "cuda"
) -> list[bytes]:
    """Each item, a list of (symbols, model), to the bytes of its own chunk: `batch.encode_batch` on a GPU.

    Models are table models; the j-th ones of all items share a bank.
    """
    encoder = BatchEncoder(len(items), streams, device)
    for parts in _columns([list(item) for item in items]):
        models = [_table_model(m) for _, m in parts]
        bank, index, first, count, offset = _joined(models, encoder.device)
        for (x, _), m in zip(parts, models):
            if tuple(x.shape) != m.shape:
                raise InputError(f"symbols have shape {tuple(x.shape)}, their model has {m.shape}")
        symbols = torch.cat([torch.as_tensor(x, device=encoder.device).reshape(-1) for x, _ in parts])
        encoder.table(symbols - offset, bank, index, first, count, max(int(np.prod(m.shape)) for m in models))
    return encoder.finish()


def decode_batch(
    blobs: Sequence[bytes], models: Sequence[Iterable[Model]], device: torch.device | str = "cuda"
) -> list[list[Tensor]]:
    """Each chunk back to its symbols, one int32 tensor on the device a model: `batch.decode_batch` on a GPU.

    Raises:
        FormatError: a chunk is corrupt.
    """
    decoder = BatchDecoder(blobs, device)
    out: list[list[Tensor]] = [[] for _ in blobs]
    for column in _columns([list(m) for m in models]):
        models_ = [_table_model(m) for m in column]
        bank, index, first, count, offset = _joined(models_, decoder.device)
        flat = decoder.table(bank, index, first, count) + offset
        sizes = [int(np.prod(m.shape)) for m in models_]
        for row, part, m in zip(out, flat.split(sizes), models_):
            row.append(part.view(m.shape))
    decoder.finish()
    return out


def _columns(rows: list[list[Any]]) -> list[tuple[Any, ...]]:
    if len({len(r) for r in rows}) > 1:
        raise InputError("all chunks of a batch need the same number of models")
    return list(zip(*rows))


def _table_model(model: Model) -> TableModel:
    if not isinstance(model, TableModel):
        raise UnsupportedError(f"{type(model).__name__} has no GPU body: code it on the CPU")
    return model


def _joined(models: Sequence[TableModel], device: torch.device) -> tuple[TableBank, Tensor, Tensor, Tensor, Tensor]:
    """Bank, and the indices, first symbols, counts and offsets of models end to end."""
    bank = models[0].bank
    if any(m.bank != bank for m in models):
        raise InputError("the models of a batch that are coded together need one bank of tables")
    parts = [torch.as_tensor(m.index, device=device).expand(m.shape).reshape(-1) for m in models]
    offsets = [torch.as_tensor(m.offset, device=device).expand(m.shape).reshape(-1) for m in models]
    if any(p.is_floating_point() for p in (*parts, *offsets)):
        raise InputError("table indices and offsets must be integers")
    narrow = all(p.dtype == torch.uint8 for p in parts)
    index = torch.cat([p if narrow else p.to(torch.int32) for p in parts])
    count = np.array([p.numel() for p in parts], np.int64)
    first, count_ = _upload(device, np.cumsum(count) - count, count.astype(np.int32))
    return bank, index, first, count_, torch.cat([o.to(torch.int32) for o in offsets])


def _layout(chunks: int, index: Tensor, first: Tensor | None, count: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if index.dtype not in (torch.uint8, torch.int32):
        raise InputError(f"a table index must be uint8 or int32, not {index.dtype}")
    if first is None:
        if index.ndim != 2 or index.shape[0] != chunks:
            raise InputError(f"an index of {chunks} chunks must be of shape ({chunks}, n), not {tuple(index.shape)}")
        first = torch.arange(chunks, device=index.device) * index.shape[1]
        if count is None:
            count = torch.full((chunks,), index.shape[1], dtype=torch.int32, device=index.device)
    elif count is None or index.ndim != 1:
        raise InputError("a flat index needs first and count")
    if first.shape != (chunks,) or count.shape != (chunks,):
        raise InputError(f"first and count must be of shape ({chunks},)")
    return index.contiguous(), first.to(torch.int64), count.to(torch.int32)


def _launches(streams: np.ndarray, sides: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int, bool]]]:
    """Chunk numbers ordered by launch; of each launch streams, first chunk, chunks, whether it has side sections."""
    key = 2 * streams + sides
    order = np.argsort(key, kind="stable")
    kinds, start, size = np.unique(key[order], return_index=True, return_counts=True)
    launches = [(int(k) // 2, int(a), int(n), bool(k % 2)) for k, a, n in zip(kinds, start, size)]
    return order.astype(np.int32), launches


def _escape_values(data: bytes) -> np.ndarray:
    """The integers of an escape section, int32.

    Raises:
        FormatError: it is not canonical LEB128 of 32 bits.
    """
    b = np.frombuffer(data, np.uint8).astype(np.int64)
    ends = np.flatnonzero(b < 128)
    size = np.diff(ends, prepend=-1)
    z = np.zeros(ends.size, np.int64)
    for j in range(5):
        at = np.minimum(ends - size + 1 + j, ends)
        z |= np.where(j < size, (b[at] & 127) << (7 * j), 0)
    whole = not b.size or (ends.size and ends[-1] == b.size - 1)
    if not whole or (size > 5).any() or (z >> 32).any() or ((size > 1) & (b[ends] == 0)).any():
        raise FormatError("the escape section is malformed: the entropy-coded chunk is truncated or corrupt")
    return ((z >> 1) ^ -(z & 1)).astype(np.int32)


def _of_chunk(number: int, function: Any, *args: Any) -> Any:
    try:
        return function(*args)
    except FormatError as error:
        raise FormatError(f"chunk {number}: {error}") from None


def _gather(parts: list[tuple[Tensor, Tensor, np.ndarray]]) -> np.ndarray:
    """Pieces of int32 buffers (buffer, where each piece begins, sizes), end to end, by one copy to the host."""
    total = int(sum(size.sum() for _, _, size in parts))
    device = parts[0][0].device
    flat = torch.empty(total, dtype=torch.int32, device=device)
    at = 0
    for buffer, first, size in parts:
        if size.sum():
            target, size_ = _upload(device, at + np.cumsum(size) - size, size)
            kernels.gather_kernel[(size.size,)](buffer, first, flat, target, size_, BLOCK=_BLOCK, num_warps=2)
            at += int(size.sum())
    if not flat.is_cuda:
        return flat.numpy()
    host = torch.empty(total, dtype=torch.int32, pin_memory=True)
    host.copy_(flat)
    return host.numpy()


def _upload(device: torch.device, *arrays: np.ndarray) -> list[Tensor]:
    """Arrays on the device by one copy."""
    sizes = [-(-a.nbytes // 16) * 16 for a in arrays]  # aligned for any dtype
    host = torch.zeros(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    view, at, parts = host.numpy(), 0, []
    for a, size in zip(arrays, sizes):
        view[at : at + a.nbytes] = np.ascontiguousarray(a).reshape(-1).view(np.uint8)
        parts.append((at, a))
        at += size
    there = host.to(device, non_blocking=True)
    return [
        there[at : at + a.nbytes].view(cast(torch.dtype, getattr(torch, a.dtype.name))).view(a.shape) for at, a in parts
    ]


def _check_device(device: torch.device | str) -> torch.device:
    device = torch.device(device)
    if kernels is None:
        raise UnsupportedError(
            "coding on a GPU needs Triton, which PyTorch for CUDA brings on Linux: pip install triton"
        )
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    if device.type != "cuda" and not kernels.INTERPRETED:
        raise UnsupportedError(f"the batched coder runs on CUDA devices, not on {device.type}: use entropy.batch there")
    return device


def _on(device: torch.device) -> Any:
    """Kernels start on the device of their tensors, whichever is current."""
    return torch.cuda.device(device if device.type == "cuda" else -1)
