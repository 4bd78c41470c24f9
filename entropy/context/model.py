"""Context-conditioned coding of integer latents without side information.

`ContextModel.program` codes a latent (C, h, w) in a few vectorised passes a channel (`steps`). In
each pass a small exact-integer network (`net`) reads the neighbours known so far and the earlier
channels, and says for every symbol where its distribution lies and how wide it is; both only choose one of a
bank of frozen integer tables. Nothing is adapted while coding and no inexact sum is ever compared, so encoder
and decoder agree on every machine; and since a channel depends on earlier channels only, the first channels
can be decoded alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..dense import to_numpy
from ..errors import InputError
from ..tables import TableBank
from . import lockstep, net, passes
from .steps import REACH, STEPS, Step

VERSIONS = 1, 2  # of the arrays and of every constant in `net` and `steps`; 1 has no SURROUND taps


@dataclass(frozen=True, eq=False)
class ContextModel:
    """A fitted model of latents of `depths.size` channels; all its numbers are integers.

    depths: (C,) int8, DEEP, MIDDLE or CHECKER for each channel.
    gains: (C,) int8 >= 1: samples of a channel are multiplied by this before they enter a network.
    nets: one `StepNet` a step, in coding order.
    bank: the frequency tables.
    class_start, class_fractions: (S,) the first table of each scale class, and log2 of how many positions of
        the mean between two integers it distinguishes.

    Example:
        >>> model = ContextModel.fit(latents)                        # doctest: +SKIP
        >>> encoder = Encoder(); _ = model.program(encoder, z, z.shape)    # doctest: +SKIP
        >>> z2 = model.program(Decoder(encoder.finish()), None, z.shape)   # doctest: +SKIP
    """

    depths: npt.NDArray[np.int8]
    gains: npt.NDArray[np.int8]
    nets: tuple[net.StepNet, ...]
    bank: TableBank
    class_start: npt.NDArray[np.int16]
    class_fractions: npt.NDArray[np.int8]

    def __post_init__(self) -> None:
        c = self.depths.size
        if (
            c < 1
            or self.gains.shape != (c,)
            or int(self.gains.min()) < 1
            or not np.isin(self.depths, list(STEPS)).all()
        ):
            raise InputError("a context model needs a depth 0..2 and a gain >= 1 for each of its channels")
        if len(self.nets) != len(self.steps):
            raise InputError(f"{len(self.steps)} steps need as many networks, not {len(self.nets)}")
        for (channel, step), n in zip(self.steps, self.nets):
            _check_taps(n.taps, channel, step)
        last = self.class_start.astype(np.int64) + (1 << self.class_fractions.astype(np.int64))
        if self.class_start.shape != self.class_fractions.shape or self.class_start.size < 1:
            raise InputError("each scale class needs a first table and a number of fractions")
        if int(self.class_start.min()) < 0 or int(last.max()) > self.bank.num_tables:
            raise InputError("a scale class names tables that the bank does not have")
        if not 0 <= int(self.class_fractions.min()) <= int(self.class_fractions.max()) <= net.FRACTION_BITS:
            raise InputError(f"a scale class distinguishes 2**0..2**{net.FRACTION_BITS} fractions")

    @property
    def channels(self) -> int:
        """How many channels the model knows; any prefix of them can be coded."""
        return int(self.depths.size)

    @classmethod
    def fit(cls, latents: Sequence[npt.NDArray[Any]], **options: Any) -> ContextModel:
        """Fit to example latents, each an integer array (C, h, w); options as in `fit.fit`."""
        from .fit import fit  # loads torch, which coding does without

        return cls(*fit(latents, **options))

    @cached_property
    def tables(self) -> npt.NDArray[np.float32]:
        """What each channel's taps make of a sample: `net.input_table`, (2 C, 256)."""
        return np.concatenate([net.input_table(int(g)) for g in self.gains])

    def program(
        self, coder: Any, latent: npt.NDArray[Any] | None, shape: tuple[int, int, int]
    ) -> npt.NDArray[np.int32]:
        """Code one latent with `coder` (encoder, decoder or rate meter).

        Args:
            latent: integer array of `shape`, or None to decode.
            shape: (C, h, w); C may be smaller than the model's number of channels: a prefix.

        Returns:
            int32 array of `shape`: the latent.

        Raises:
            InputError: the shape does not fit the model, or the latent the shape.
        """
        c, h, w = (int(n) for n in shape)
        if not 1 <= c <= self.channels or h < 1 or w < 1:
            raise InputError(f"a latent of shape {tuple(shape)} does not fit a model of {self.channels} channels")
        latent = None if latent is None else to_numpy(latent, "a latent")
        if latent is not None and (latent.shape != (c, h, w) or latent.dtype.kind not in "iu"):
            raise InputError(f"expected an integer latent of shape {(c, h, w)}, not {latent.dtype}{latent.shape}")
        return passes.body()(self, c, h, w).run(coder, latent).reshape(c, h, w)

    def decode_alike(self, chunks: Sequence[bytes], out: npt.NDArray[Any], limit: int) -> npt.NDArray[np.bool_]:
        """Decode the chunks of several latents of one shape at once, which is faster than one by one.

        Args:
            chunks: each of all channels, of an encoder that ran `program`.
            out: (n, C, h, w) int8 or int16 in C order: the latents.
            limit: largest magnitude that may occur; it fits the dtype of `out`.

        Returns:
            (n,) whether a latent is there. The others may hold anything: damaged ones, and those that do not go
            together; `program` with a `Decoder` decodes them, or says what is wrong.
        """
        if not lockstep.suits(self, out.shape[1:]):
            return np.zeros(len(chunks), np.bool_)
        return lockstep.decode(self, chunks, out, limit)

    @cached_property
    def version(self) -> int:
        """Of the arrays: 2 where a network sums up what is around a point."""
        return 2 if any((n.what == net.SURROUND).any() for n in self.nets) else 1

    @cached_property
    def steps(self) -> tuple[tuple[int, Step], ...]:
        """Channel and step of each network, in coding order."""
        return tuple((c, s) for c in range(self.channels) for s in STEPS[int(self.depths[c])])

    @cached_property
    def start(self) -> npt.NDArray[np.int32]:
        """`class_start` as the networks' conclusion reads it."""
        return self.class_start.astype(np.int32)

    @cached_property
    def drop(self) -> npt.NDArray[np.int32]:
        """How many bits of a mean's fraction each scale class leaves out."""
        return net.FRACTION_BITS - self.class_fractions.astype(np.int32)

    @cached_property
    def packed(self) -> passes.Packed:
        """The networks and tables as compiled loops read them."""
        return passes.Packed(self)

    def fingerprint(self) -> bytes:
        """Eight bytes that name this model in a file header: all that decoding depends on."""
        h = hashlib.sha256(b"latentzip context model 1\n")
        for name, value in sorted(self.to_arrays().items()):
            h.update(f"{name} {value.shape}\n".encode())
            h.update(value.astype("<i4").tobytes())
        return h.digest()[:8]

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Plain integer arrays, for safetensors or npz."""
        out = {
            "version": np.array([self.version], np.int16),
            "depths": self.depths,
            "gains": self.gains,
            "class_start": self.class_start,
            "class_fractions": self.class_fractions,
            "layout": np.array([(n.taps.shape[0], n.b1.size) for n in self.nets], np.int16),
        }
        out["taps"] = np.concatenate([net.pack_taps(n.taps, self.version + 1) for n in self.nets])
        for name in _NET_FIELDS:
            out[name] = np.concatenate([getattr(n, name).reshape(-1) for n in self.nets])
        out.update({f"bank.{k}": v for k, v in self.bank.to_arrays().items()})
        if self.bank.precision < 15:  # half the bytes
            out["bank.freq"] = out["bank.freq"].astype(np.int16)
        return {k: np.ascontiguousarray(v) for k, v in out.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> ContextModel:
        """The inverse of `to_arrays`; everything is validated again.

        Raises:
            InputError: a key is missing or the arrays are no valid model.
        """
        need = {"version", "depths", "gains", "class_start", "class_fractions", "layout", "taps", *_NET_FIELDS}
        if missing := need - set(arrays):
            raise InputError(f"a context model lacks the arrays {sorted(missing)}")
        a = {k: np.asarray(arrays[k]) for k in need}
        if a["version"].tolist() not in ([v] for v in VERSIONS):
            raise InputError(f"a context model of version {a['version'].tolist()}: this release reads {VERSIONS}")
        kinds = int(a["version"][0]) + 1
        layout = a["layout"].astype(np.int64)
        if layout.ndim != 2 or layout.shape[1] != 2 or layout.min(initial=0) < 0:
            raise InputError(f"the layout of a context model must be (N, 2), not {layout.shape}")
        parts: dict[str, list[np.ndarray]] = {}
        for name, (dtype, shape_of) in _NET_FIELDS.items():
            shapes = [shape_of(int(f), int(h)) for f, h in layout]
            sizes = np.array([int(np.prod(s)) for s in shapes])
            if a[name].ndim != 1 or a[name].size != sizes.sum() or a[name].dtype.kind not in "iu":
                raise InputError(f"array {name} of a context model must hold {sizes.sum()} integers")
            pieces = np.split(a[name].astype(dtype), np.cumsum(sizes)[:-1])
            parts[name] = [p.reshape(s) for p, s in zip(pieces, shapes)]
        taps = a["taps"]
        if taps.ndim != 1 or taps.size != layout[:, 0].sum() or taps.dtype.kind not in "iu":
            raise InputError(f"array taps of a context model must hold {layout[:, 0].sum()} integers")
        tap_rows = np.split(net.unpack_taps(taps, kinds), np.cumsum(layout[:, 0])[:-1])
        bank = TableBank.from_arrays({k[5:]: v for k, v in arrays.items() if k.startswith("bank.")})
        return cls(
            depths=a["depths"].astype(np.int8),
            gains=a["gains"].astype(np.int8),
            nets=tuple(
                net.StepNet(taps=tap_rows[i], **{n: parts[n][i] for n in _NET_FIELDS}) for i in range(len(layout))
            ),
            bank=bank,
            class_start=a["class_start"].astype(np.int16),
            class_fractions=a["class_fractions"].astype(np.int8),
        )


_NET_FIELDS: dict[str, tuple[type, Any]] = {
    "w1": (np.int8, lambda f, h: (h, f)),
    "b1": (np.int32, lambda f, h: (h,)),
    "s1": (np.int8, lambda f, h: (h,)),
    "wl": (np.int16, lambda f, h: (2, f)),
    "w2": (np.int16, lambda f, h: (2, h)),
    "b": (np.int32, lambda f, h: (2,)),
}


def _check_taps(taps: npt.NDArray[np.int16], channel: int, step: Step) -> None:
    """Refuse taps that would read beyond a plane or the future."""
    what, back, dy, dx = taps.astype(np.int64).T
    bad = (what < 0) | (what > net.SURROUND) | (back < 0) | (back > channel)
    bad |= np.maximum(np.abs(dy), np.abs(dx)) > REACH
    if bad.any():
        raise InputError(f"channel {channel}, {step}: a tap lies outside what is known by then")
