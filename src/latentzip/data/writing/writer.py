"""A pack written by a loop: signals are handed in one after the other, such as the activations of a network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from ...entropy.errors import InputError
from ...entropy.numbers import MOST, plain, whole
from ..arguments import names
from ..manifest import FORMAT, WIDER
from ..places import place_of
from .folder import begin, claimed, clean_parts
from .merging import PackResult, merge, result_of
from .packing import check_names, hashed, options_of, try_options
from .shard import Coded, Shard, Stream, check_lengths, code, finished
from .sources import checked_cell, key_of


class PackWriter:
    """Writes a pack sample by sample; the manifest appears when the block ends.

    A run that was killed goes on: open the writer with the same arguments and hand in all but the first `done` samples.

    Args:
        dst: folder or URL to write.
        codec: as `pack`; of several streams a sample a dict, name -> codec, the first under the empty name.
        shard_samples: samples a shard; these go to disk together, and what is in an unfinished one is lost in a crash.
        columns: names of the columns that `add` gets beside the label.
        mirror: store every picture mirrored as well.
        modality: of codecs that take several, such as `lossless`: "image" (the default there) or "audio"; of several
            streams a dict, name -> modality.
        force: begin anew where ``dst`` holds a pack made otherwise.
        options: of the codec, and of pictures and sound as in `pack`; of several streams those of the first.

    Attributes:
        done: samples that are in finished shards of an earlier run.
        result: of the finished pack.

    Raises:
        InputError: options that make no sense, or ``dst`` holds something else.

    Example:
        >>> with lz.data.PackWriter("acts", "features", nmse=0.01) as writer:      # doctest: +SKIP
        ...     for x, label in batches[writer.done :]:
        ...         writer.add(net.features(x), label)
    """

    def __init__(
        self,
        dst: str | os.PathLike[str],
        codec: Any,
        *,
        shard_samples: int = 1000,
        columns: tuple[str, ...] = (),
        mirror: bool = False,
        modality: str | Mapping[str, str] | None = None,
        force: bool = False,
        **options: Any,
    ) -> None:
        shard_samples = whole("shard_samples", shard_samples, 1)
        codecs = dict(codec) if isinstance(codec, Mapping) else {"": codec}
        if "" not in codecs:
            raise InputError("the first stream of a sample has the empty name: {'': codec, 'mask': codec}")
        self._columns = names("columns", columns)
        check_names(self._columns, [name for name in codecs if name])
        wanted = dict(modality) if isinstance(modality, Mapping) else {} if modality is None else {"": modality}
        if unknown := sorted(set(wanted) - set(codecs)):
            raise InputError(f"modality names stream {unknown[0]!r}; the pack has {sorted(codecs)}")
        streams = {}
        for name, own in sorted(codecs.items()):
            asked = {"mirror": mirror} | ({} if name else options)
            model, weights, kinds, o = options_of(own, asked, modality=wanted.get(name))
            try_options(kinds[0], o, model)
            streams[name] = Stream(name, kinds[0].name, None, o, weights)
        self._streams = list(streams.values())
        self._codecs = [stream.codec() for stream in self._streams]
        self._place, self._each = place_of(dst), shard_samples
        plan = {
            "format": FORMAT, "version": WIDER, "options": self._streams[0].options.facts(),
            "source": {"kind": "writer", "columns": list(self._columns)}, "samples per shard": shard_samples,
            "streams": {s.name: s.options.facts() for s in self._streams[1:]},
        } | ({"modality": wanted} if wanted else {})  # fmt: skip
        self._plan = hashed(plan)
        self._stack = ExitStack()
        self._shard: Shard | None = None
        self._taken = 0  # samples in the shard at work
        self._records: list[dict[str, Any]] = []
        self._keys: set[str] = set()  # of samples so far
        self._labelled: bool | None = None  # whether these have labels
        self.done = 0
        self.result: PackResult | None = result_of(self._place) if begin(self._place, self._plan, force) else None
        if self.result is None:
            self._stack.enter_context(claimed(self._place, shared=False))
            self._find()
        else:
            self.done = self.result.samples

    def _find(self) -> None:
        """What an earlier run has finished."""
        while (record := finished(self._place, self._file, self._plan["sha256"])) is not None:
            self._records.append(record)
            self.done += record["taken"]
            self._keys.update(row[0].partition("@")[0] for row in record["rows"])
            self._labelled = record["rows"][0][1] is not None
            if record["taken"] < self._each:  # the last one, of a run that only the manifest was missing
                break
        clean_parts(self._place, self._file)

    @property
    def _file(self) -> str:
        return f"{len(self._records):05d}.tar"

    def __len__(self) -> int:
        """Samples so far, those of earlier runs counted."""
        return sum(record["taken"] for record in self._records) + self._taken

    def add(self, x: Any, label: Any = None, key: str | None = None, **more: Any) -> None:
        """One sample.

        Args:
            x: what the codec takes: a tensor, an array, a Pillow image, a pair (samples, rate); of several streams a
                dict, name -> signal.
            label: an integer, or a word; words become classes.
            key: its name; by default its number.
            more: values of the columns, and nothing else.

        Raises:
            InputError: a signal that cannot be coded, a key twice, a label that is missing where others have one (or
                the other way round), or columns that are missing; the pack stays as it was.
        """
        if self.result is not None:
            raise InputError(f"{self._place}: the pack is finished; begin anew with force=True, or in another folder")
        if set(more) != set(self._columns):
            raise InputError(f"columns {sorted(more)} were given; {sorted(self._columns)} are what this pack has")
        if label is not None and (isinstance(label, bool) or not isinstance(label, (int, str))):
            label = _whole(label)
        if isinstance(label, int) and not -MOST <= label <= MOST:
            raise InputError(f"{label!r:.60} is no label: it is beyond 64 bits")
        number = len(self)
        name = f"{number:08d}" if key is None else key_of(f"{key}.x").replace("@", "_")
        extra = tuple(checked_cell(plain(more[column]), column) for column in self._columns)
        parts = x if isinstance(x, Mapping) and len(self._streams) > 1 else {"": x}
        if set(parts) != {s.name for s in self._streams}:
            raise InputError(f"streams {sorted(parts)} were given; {[s.name for s in self._streams]} are the pack's")
        self._check_fits(name, label)
        coded: list[list[Coded]] = []
        for stream, codec in zip(self._streams, self._codecs):
            coded.append(code(stream, codec, stream.kind.accept(parts[stream.name])))
        check_lengths(self._streams, coded)
        if self._shard is None:
            self._shard = Shard(self._place, self._file, self._plan["sha256"], self._streams)
            self._shard.writer.__enter__()
        self._shard.add(name, label, coded, extra)
        self._keys.add(name)
        self._labelled = label is not None
        self._taken += 1
        if self._taken == self._each:
            self._finish_shard()

    def _check_fits(self, name: str, label: Any) -> None:
        """Raises InputError for what would make the whole pack impossible when it is closed."""
        if name in self._keys:
            raise InputError(f"the key {name!r} occurs twice; every sample needs one of its own")
        if self._labelled is not None and self._labelled != (label is not None):
            has, others = ("no", "the others have one") if label is None else ("a", "the others have none")
            raise InputError(f"sample {name} has {has} label while {others}")

    def _finish_shard(self) -> None:
        shard = self._shard
        if shard is not None:
            shard.writer.__exit__(None, None, None)
            record = shard.finish([], self._taken)
            self._records.append(record)
            self._shard, self._taken = None, 0

    def close(self) -> PackResult:
        """Write what is left and the manifest.

        Raises:
            InputError: no sample was handed in.
        """
        if self.result is None:
            self._finish_shard()
            merge(self._place, self._plan["sha256"], self._records, self._streams, None, self._columns)
            self.result = result_of(self._place)
            self._stack.close()
        return self.result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
            return
        if self._shard is not None:
            self._shard.writer.__exit__(kind, error, trace)
        self._stack.close()


def _whole(label: Any) -> int:
    """A label that numpy or torch made."""
    try:
        number = int(label)
    except (TypeError, ValueError):
        number = None
    if number is None or number != label:
        raise InputError(f"{label!r:.60} is no label; words or integers are")
    return number
