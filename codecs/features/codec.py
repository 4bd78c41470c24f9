"""`features`: any float tensor as a short bitstream with a known error. No training; a profile makes it shorter.

A tensor is seen as rows of channels. A transform (identity, Hadamard, or a KLT fitted to the tensor or brought by a
profile) turns channels into components; one step quantises them all, which is reverse water-filling; each component
has a table of its own; rows may be predicted from earlier ones (`rows`). Tensors with two spatial axes may be
coded as maps instead (`maps`), rows as numbers of codewords (`codewords`), and every float may be kept to the last bit
(`lossless`).

Symbols decode to the same integers on every machine. What is computed from them is float32 arithmetic: decoded values
agree between machines to float noise, except for lossless streams, which are exact; error bounds leave room for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ...entropy import container, opening
from ...entropy.container import Header, Limits
from ...entropy.dense import dense
from ...entropy.dense import tensor_of as tensor_of_array
from ...entropy.errors import FormatError, InputError, UnsupportedError
from ...entropy.numbers import share
from ...kernels.parallel import parallel
from ..contract import CHANNELS, LATENT, REGION, TOKENS, Compressed, Option
from ..outputs import write_file
from ..surroundings import plainly
from ..vq.residual import check_tokens, usage
from . import codebooks as codebooks_
from . import codewords, transforms
from . import lossless as lossless_
from . import profile as profiles
from .codebooks import CodeProfile
from .decoder import Reader
from .encoder import Goal, Job, bits_used
from .layout import DTYPES, LOSSLESS, MAPS, PROFILE, TORCH, Params, View, bits_of
from .options import OPTIONS
from .profile import Profile

_HUGE, _TINY = 1e30, 1e-30  # float32 arithmetic is safe for magnitudes between


class FeatureCodec:
    """Codec of float tensors: float16, bfloat16 or float32, any shape, torch or numpy.

    Args:
        profile: what `fit` learned; None fits what it needs to each tensor and sends it along.

    Example:
        >>> import torch
        >>> codec = FeatureCodec()
        >>> x = torch.randn(200, 16)
        >>> y = codec.decode(codec.encode(x, max_error=0.01))
        >>> bool((x - y).abs().max() <= 0.01)
        True
    """

    name: str = "features"
    modality: Literal["tensor"] = "tensor"
    options: tuple[Option, ...] = OPTIONS

    def __init__(self, profile: Profile | CodeProfile | None = None) -> None:
        self.profile = profile
        self.device = torch.device("cpu")

    def __repr__(self) -> str:
        if self.profile is None:
            return "FeatureCodec()"
        codes = f", {self.profile.product.parts} codes" if isinstance(self.profile, CodeProfile) else ""
        return f"FeatureCodec(profile {self.fingerprint.hex()}, {self.profile.channels} channels{codes})"

    @property
    def capabilities(self) -> frozenset[str]:
        """See `contract`; a profile of codebooks has tokens."""
        tokens = {TOKENS} if isinstance(self.profile, CodeProfile) else set()
        return frozenset({LATENT, REGION, CHANNELS} | tokens)

    def to(self, device: str | torch.device) -> FeatureCodec:
        """A codec of the same profile that decodes onto a device; coding itself happens on the CPU."""
        codec = FeatureCodec(self.profile)
        codec.device = torch.device(device)
        return codec

    def eval(self) -> FeatureCodec:
        """Itself: there is nothing to train."""
        return self

    @property
    def fingerprint(self) -> bytes:
        """8 bytes that name the profile, or the codec without one."""
        return hashlib.sha256(b"features 1").digest()[:8] if self.profile is None else self.profile.fingerprint

    # --- profiles ------------------------------------------------------------------------------------------------

    @classmethod
    @plainly
    def fit(
        cls, samples: Tensor | np.ndarray | Iterable[Any], *, axis: int = -1, nmse: float = 0.01, weights: Any = None,
        transform: str = "klt", size: int | None = None, levels: int = 1, price: float = codebooks_.PRICE,
    ) -> FeatureCodec:  # fmt: skip
        """Learn rotation, widths and a step from samples of a layer's features; or a rotation and codebooks.

        Args:
            samples: a tensor, or several, alike in their channels; thousands of rows do better than hundreds.
            axis: which axis holds the channels.
            nmse: sets the default step: mean squared error over the variance about the channels' means. With
                ``transform="vq"`` and no size: as many codes as keep to it.
            weights: what an error costs: (D,) non-negative, or (D, D) positive semi-definite such as the mean of
                J^T J, where J is the derivative of what the network makes of its features. Of a KLT.
            transform: "klt", or "vq" for product codes: numbers of codewords, at most a byte each.
            size: of "vq": codes a row.
            levels: of "vq": each level of ``size / levels`` codes refines those before; fewer are a lower rate.
            price: of a bit in the fit of "vq", see `latentzip.codecs.vq.product.fit`.

        Returns:
            A codec. `save` it; streams name it by its fingerprint, and decoding needs it.

        Raises:
            InputError: samples that do not fit each other, are not finite, or have fewer than two rows (32 for "vq").
        """
        if isinstance(samples, (Tensor, np.ndarray)):
            samples = [samples]
        nmse = share("nmse", nmse)
        if isinstance(samples, (str, bytes, dict)) or not hasattr(samples, "__iter__"):
            raise InputError(f"fit takes a tensor, an array, or several of them, not a {type(samples).__name__}")
        axis_of = [(tensor_of(x)[0], axis) for x in samples]
        for x, a in axis_of:
            if not -x.ndim <= a < x.ndim:
                raise InputError(f"axis {a} does not exist in a sample of shape {tuple(x.shape)}")
        ranks = {x.ndim for x, _ in axis_of}
        axis = axis if axis < 0 else axis - max(ranks, default=1)
        if transform == "vq":
            if weights is not None:
                raise InputError("weights are for transform='klt': codewords are fitted to the plain squared error")
            rows = profiles.rows_of((x for x, _ in axis_of), axis, codebooks_.FIT_ROWS)
            return cls(codebooks_.fit(rows, size, levels, price, nmse, axis))
        if transform != "klt" or size is not None or levels != 1:
            raise InputError(f"transform is {transform!r}; profiles are of 'klt', or of 'vq' with size and levels")
        return cls(profiles.fit((x for x, _ in axis_of), axis, nmse, weights))

    def save(self, path: str | Path) -> None:
        """Write the profile as a safetensors file; it appears whole or not at all."""
        if self.profile is None:
            raise InputError("this codec has no profile to save: make one with FeatureCodec.fit")
        write_file(path, self.profile.to_bytes())

    @classmethod
    @plainly
    def load(cls, path: str | Path) -> FeatureCodec:
        """Read what `save` wrote.

        Raises:
            FormatError: not a profile.
            OSError: the file cannot be read.
        """
        return from_bytes(opening.read_file(path, opening.MAX_WEIGHTS))

    # --- tensors <-> streams -------------------------------------------------------------------------------------

    @plainly
    def encode(self, x: Any, **options: Any) -> bytes:
        """One tensor to one `.ltz` stream; options as `compress`."""
        tensor, kind = tensor_of(x)
        header = Header(self.name, self.fingerprint, self.modality, kind, tuple(tensor.shape), DTYPES[tensor.dtype])
        container.write(header, ())  # what `read` would refuse is refused before the work
        packed = self.compress(tensor, **options)
        return container.write(replace(header, params=packed.params), packed.chunks)

    @plainly
    def decode(
        self,
        stream: bytes,
        *,
        channels: int | None = None,
        region: Sequence[int] | None = None,
        limits: Limits = container.DEFAULT_LIMITS,
    ) -> Any:
        """Inverse of `encode`: the same kind of object, dtype and shape; arguments as `decompress`."""
        box = container.read(stream, limits)
        y = self.decompress(box.header, box.chunks, channels=channels, region=region)
        return y.numpy() if box.header.kind == "numpy" else y

    @plainly
    def compress(
        self,
        x: Tensor,
        *,
        max_error: float | None = None,
        relative_error: float | None = None,
        nmse: float | None = None,
        bits: float | None = None,
        lossless: bool = False,
        nan: str = "keep",
        transform: str = "auto",
        axis: int | None = None,
    ) -> Compressed:
        """Code one tensor. At most one goal; without any, a profile's step, else lossless.

        Args:
            x: float16, bfloat16 or float32, any shape.
            max_error: no decoded value is further from its original than this.
            relative_error: the same as a fraction of the largest magnitude.
            nmse: mean squared error over the variance of the tensor, at most.
            bits: bits a value, everything counted, at most.
            lossless: every bit is kept, those of NaN and infinities included.
            nan: "keep" keeps NaN and infinities to the bit, whatever the goal; "refuse" raises.
            transform: "auto" tries "identity", "hadamard", "klt" and "map" (the last two axes are spatial); or one of
                them; or "vq": codewords, fitted to the tensor and sent along, for nmse or bits and many rows.
            axis: the channel axis; by default the last, or the profile's.

        Raises:
            InputError: an option or goal that cannot be met; the text says which.
        """
        x = tensor_of(x)[0]
        goal = Goal.of(max_error, relative_error, nmse, bits, lossless, self.profile is not None)
        if nan not in ("keep", "refuse"):
            raise InputError(f"nan is {nan!r}; one of 'keep', 'refuse'")
        if transform not in ("auto", "map", "vq", *transforms.NAMES):
            raise InputError(f"transform is {transform!r}; one of auto, map, {', '.join(transforms.NAMES)}, vq")
        codes = isinstance(self.profile, CodeProfile)
        if self.profile is not None and transform not in ("auto", "vq" if codes else "klt"):
            raise InputError(f"transform is {transform!r}, but the profile brings its own: leave transform out")
        if transform == "vq" or codes:
            asked = lossless or not {max_error, relative_error, nmse, bits} <= {None}
            codewords.check_goal(goal, asked, codes)
        x = x.cpu()
        view = View.of(x, axis, self.profile)
        if x.numel() == 0:
            return Compressed(Params(LOSSLESS, flags=PROFILE * view.profiled, axis=view.axis, chunk=1).pack(), [])
        data = view.rows(x)
        low, high = (float(v) for v in torch.aminmax(data))  # NaN where there is one
        whole = isfinite(low) and isfinite(high)
        finite, values = None, data.float()
        if not whole:
            finite = torch.isfinite(data)
            if nan == "refuse":
                raise InputError(
                    f"the tensor holds {int((~finite).sum())} NaN or infinite values; nan='keep' keeps them as they are"
                )
            values = torch.where(finite, values, torch.zeros(()))
            low, high = (float(v) for v in torch.aminmax(values))
        top = max(abs(low), abs(high))
        if goal.kind != "lossless" and (top > _HUGE or 0 < top < _TINY):
            goal = Goal("lossless") if goal.kind != "bits" else goal
        if goal.kind == "lossless":
            return self._lossless(data, view)
        if goal.kind == "bits":
            exact = self._lossless(data, view)
            if bits_used(exact) <= goal.value * data.numel():
                return exact
            del exact
        goal = goal.resolved(values, self.profile.step if isinstance(self.profile, Profile) else 0.0)
        if low == high and goal.kind in ("mse", "max_error"):
            goal = Goal(goal.kind)  # nothing varies, so nothing need be lost
        own = None if isinstance(self.profile, CodeProfile) else self.profile
        job = Job(own, data, values, None if finite is None else ~finite, view, goal, top)
        if isinstance(self.profile, CodeProfile) and goal.kind == "mse" and not goal.value:
            return self._lossless(data, view)
        if isinstance(self.profile, CodeProfile) or (transform == "vq" and low < high):
            best = codewords.encode(job, self.profile if isinstance(self.profile, CodeProfile) else None)
        else:
            best = job.run("auto" if transform == "vq" else transform)
        if best is None:
            return self._lossless(data, view)
        if goal.kind == "bits":
            return best
        # a tensor that is hard to approximate is kept instead
        exact = self._lossless(data, view) if _size(best) > data.numel() * data.element_size() * 5 / 8 else best
        return min(best, exact, key=_size)

    def _lossless(self, data: Tensor, view: View) -> Compressed:
        dtype = DTYPES[data.dtype]
        chunk = view.block
        parts = [bits_of(part) for part in data.split(chunk)]
        chunks = list(parallel(lambda part: lossless_.encode(part, dtype), parts))
        return Compressed(Params(LOSSLESS, flags=PROFILE * view.profiled, axis=view.axis, chunk=chunk).pack(), chunks)

    @plainly
    def decompress(
        self,
        header: Header,
        chunks: Sequence[bytes],
        *,
        channels: int | None = None,
        region: Sequence[int] | None = None,
        to: Literal["signal", "latent", "tokens"] = "signal",
    ) -> Tensor:
        """Inverse of `compress`.

        Args:
            header: of the stream, with its parameters.
            chunks: its payloads; only those needed are read.
            channels: decode this many components only, the first ones; the others count as zero. For streams with a
                KLT; of codes so many levels.
            region: (start, stop) along the first axis; only the chunks that it touches are decoded.
            to: "latent" stops after entropy decoding and returns the symbols (N, K) int32 (bit patterns of lossless
                streams). "tokens" of a stream of codes are (m, ...) int64: a plane for each code of a row.

        Raises:
            FormatError: not what this codec writes.
            UnsupportedError: the stream needs another profile.
            InputError: the region or the number of components does not suit the stream.
        """
        if header.fingerprint != self.fingerprint:
            raise UnsupportedError(_other_profile(header.fingerprint, self))
        if header.dtype not in TORCH:
            raise FormatError(f"features: a stream of {header.dtype}, which this codec does not code")
        p = Params.unpack(header.params, header.shape)
        view = View.of_shape(header.shape, p.axis, p.mode == MAPS, bool(p.flags & PROFILE))
        reader = Reader(p, view, header.dtype, chunks, self.profile)
        return reader.read(channels, region, to).to(self.device)

    def restore(
        self, header: Header, chunks: Sequence[bytes], *, to: Literal["signal", "latent", "tokens"] = "signal",
        **part: Any,
    ) -> Tensor:  # fmt: skip
        """`decompress`; see `contract.AnyCodec`."""
        return self.decompress(header, chunks, to=to, **part)

    # --- tokens --------------------------------------------------------------------------------------------------

    @property
    def _codes(self) -> CodeProfile:
        if not isinstance(self.profile, CodeProfile):
            raise InputError("this codec has no codebooks: make some with FeatureCodec.fit(samples, transform='vq')")
        return self.profile

    @property
    def codebooks(self) -> Tensor:
        """(m, N, D) float32: what each token adds to a row, beside the mean; InputError without codebooks."""
        return self._codes.product.vectors()

    @plainly
    def tokens(self, x: Any) -> Tensor:
        """Numbers of codewords of a finite tensor: (m, ...) int64, a plane of its positions for each code of a row, the
        coarsest level first; InputError without codebooks."""
        tensor = tensor_of(x)[0].cpu().float()
        view = View.of(tensor, None, self._codes)
        rows = view.rows(tensor)
        if not bool(torch.isfinite(rows).all()):
            raise InputError("the tensor contains NaN or infinite values, which have no tokens")
        return view.tokens(self._codes.product.codes(rows))

    @plainly
    def from_tokens(self, tokens: Any) -> Tensor:
        """The tensor, float32, that tokens (k, ...) of the first levels stand for.

        Raises:
            InputError: tokens that are none of this codec's, or not of whole levels.
        """
        rows, view = self._of_tokens(tokens)
        return view.tensor(self._codes.product.rows(rows), None)

    @plainly
    def encode_tokens(self, tokens: Any) -> bytes:
        """Tokens (k, ...) of the first levels as a `.ltz` stream, which decodes to them and to what they stand for;
        errors as `from_tokens`."""
        rows, view = self._of_tokens(tokens)
        levels = rows.shape[1] // self._codes.product.groups
        packed = codewords.of_codes(self._codes, rows.to(torch.uint8).numpy(), levels, view)
        header = Header(self.name, self.fingerprint, self.modality, "numpy", view.shape, "float32")
        return container.write(replace(header, params=packed.params), packed.chunks)

    def usage(self, tokens: Any) -> list[tuple[int, float]]:
        """Of each code of tokens (k, ...): how many codewords occur, and bits a token at their frequencies."""
        tokens = tensor_of_array(tokens, "iu", "tokens")
        check_tokens(tokens, self._codes.product.parts, self._codes.product.entries)
        return usage(tokens, self._codes.product.entries)

    def _of_tokens(self, tokens: Any) -> tuple[Tensor, View]:
        """Codes (N, k), and how the tensor lies that they are of."""
        profile, tokens = self._codes, tensor_of_array(tokens, "iu", "tokens").cpu()
        groups = profile.product.groups
        check_tokens(tokens, profile.product.parts, profile.product.entries)
        if tokens.shape[0] % groups or 0 in tokens.shape:
            raise InputError(f"tokens have shape {tuple(tokens.shape)}; a level has {groups} codes, with positions")
        rest, axis = list(tokens.shape[1:]), profile.axis
        if len(rest) + 1 + axis < 0:
            raise InputError(f"tokens have shape {tuple(tokens.shape)}; the channels' axis {axis} is missing")
        rest.insert(len(rest) + 1 + axis, profile.channels)
        view = View.of_shape(tuple(rest), axis, False, True)
        return tokens.long().reshape(len(tokens), -1).T, view


def from_bytes(data: bytes) -> FeatureCodec:
    """The codec of a profile's file; raises FormatError: not one."""
    codes = opening.metadata(data, "feature profile").get("format") == codebooks_.FORMAT
    return FeatureCodec((CodeProfile if codes else Profile).from_bytes(data))


def _other_profile(wanted: bytes, codec: FeatureCodec) -> str:
    if wanted == FeatureCodec().fingerprint:
        return "the stream was made without a profile: decode it without codec="
    have = "no profile was given" if codec.profile is None else f"the profile given is {codec.fingerprint.hex()}"
    return (
        f"the stream needs the feature profile {wanted.hex()}, and {have}: "
        "pass codec=FeatureCodec.load(PATH) of that profile"
    )


def tensor_of(x: Any) -> tuple[Tensor, Literal["numpy", "tensor"]]:
    """A tensor of what was handed in, and which kind of object that was."""
    x = dense(x)
    if isinstance(x, Tensor):
        kind: Literal["numpy", "tensor"] = "tensor"
    elif isinstance(x, (np.ndarray, np.generic)):
        x, kind = np.asarray(x), "numpy"
        if x.dtype.newbyteorder("=") not in (np.float16, np.float32):
            raise InputError(_DTYPE.format(x.dtype))
        x = tensor_of_array(x)
    else:
        raise InputError(f"features takes a torch tensor or a numpy array, not {type(x).__name__}")
    if x.dtype not in DTYPES:
        raise InputError(_DTYPE.format(x.dtype))
    return x, kind


_DTYPE = (
    "features takes float16, bfloat16 or float32, not {}; convert it first, e.g. with .float() or .astype('float32')"
)


def _size(packed: Compressed) -> int:
    return sum(map(len, packed.chunks)) + 8 * len(packed.chunks)
