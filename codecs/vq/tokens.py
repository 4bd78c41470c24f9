"""What a codec of tokens is, whatever its signal: residual codebooks on the features of a trunk, and their prior.

Features are turned to components; each level names a codeword for what the levels before have left. Tokens of a level
depend on no later level, so that the first levels of a stream are the stream of a lower rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...entropy import container
from ...entropy.container import Header
from ...entropy.dense import tensor_of
from ...entropy.errors import FormatError, InputError
from ...entropy.schema import Check
from .. import storage
from ..base import BaseCodec
from ..contract import TOKENS, Compressed
from .options import DEFAULT_QUALITY, OPTIONS
from .prior import Prior
from .residual import check_tokens, tokens_of, usage, vectors_of

C = TypeVar("C", bound="TokenCodec")
_BUFFERS = ("mean", "to_components", "from_components", "codewords", "prices")
_BYTES = ("codewords", "block_basis")  # the second one only with coarse levels
_CODING = ("scores", "bias", "frequencies", "precision")


class TokenCodec(BaseCodec):
    """Base of the codecs of tokens, beside the base of their kind of signal.

    Attributes:
        depth, entries: levels, and N codewords of a codebook; a level is a codebook, unless it is coarse.
        coarse: how many levels come first that are at half the resolution.
        prior: of the tokens; None until one is fitted.
    """

    depth: int
    entries: int
    coarse: int = 0
    variable_rate = True
    default_quality = DEFAULT_QUALITY
    declared = OPTIONS

    def add_codebooks(
        self, features: int, components: int, levels: int, entries: int, books: int | None = None
    ) -> None:
        """Room for what is fitted: features (M,) -> components, codewords (K, N, components) and their prices; K is the
        number of levels where ``books`` says no other."""
        if components > features:
            raise InputError(f"{components} components of {features} features: there are not so many")
        self.depth, self.entries = levels, entries
        self.latent_channels, self.latent_limit = levels, max(entries - 1, 128)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("to_components", torch.zeros(features, components))
        self.register_buffer("from_components", torch.zeros(components, features))
        self.register_buffer("codewords", torch.zeros(books or levels, entries, components))
        self.register_buffer("prices", torch.zeros(books or levels, entries))
        self.mean: Tensor
        self.to_components: Tensor
        self.from_components: Tensor
        self.codewords: Tensor
        self.prices: Tensor
        self.prior: Prior | None = None

    @property
    def codebooks(self) -> Tensor:
        """(K, N, M) float32: codewords in the units of the features; entry 0 of each is zero."""
        return self.codewords @ self.from_components

    def levels(self, quality: float | None = None) -> int:
        """How many codebooks are used at a quality from 1 to 100."""
        return -(-self.check_quality(quality) * self.depth // 100)

    def quality_of(self, levels: int) -> int:
        """The quality at which so many codebooks are used.

        Raises:
            InputError: there are not so many.
        """
        if isinstance(levels, bool) or levels != int(levels) or not 1 <= levels <= self.depth:
            raise InputError(f"levels is {levels!r}; {self.name} has 1 to {self.depth}")
        return 100 * int(levels) // self.depth

    def checked_tokens(self, tokens: Any, axes: str) -> Tensor:
        """Tokens of one signal as int64; InputError unless they are some of this codec's, with ``axes`` such as
        "levels, h, w"."""
        tokens = tensor_of(tokens, "iu", "tokens")
        if not isinstance(tokens, Tensor) or tokens.ndim != 1 + axes.count(",") or 0 in tokens.shape:
            what = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
            noun = "picture" if axes.endswith("w") else "sound"
            raise InputError(f"tokens of one {noun} are integers ({axes}), not {what}")
        tokens = tokens.to(torch.int64)
        check_tokens(tokens, self.depth, self.entries)
        return tokens

    def first_levels(self, latent: Tensor, levels: int, axis: int = 0) -> Tensor:
        """The rows of the first levels of a latent whose ``axis`` holds K rows, or K for each group of channels."""
        groups = latent.unflatten(axis, (-1, self.depth))
        return groups.narrow(axis + 1, 0, levels).flatten(axis, axis + 1)

    def usage(self, tokens: Any) -> list[tuple[int, float]]:
        """Of each level of tokens (K, ...): how many codewords occur, and bits a token at their frequencies."""
        tokens = tensor_of(tokens, "iu", "tokens")
        check_tokens(tokens, self.depth, self.entries)
        return usage(tokens, self.entries)

    def named(self, rows: Tensor, levels: int) -> Tensor:
        """Features (n, M) -> tokens (levels, n) int64."""
        return tokens_of((rows - self.mean) @ self.to_components, self.codewords[:levels], self.prices[:levels])

    def features(self, tokens: Tensor) -> Tensor:
        """Tokens (levels, n) int64 of the first levels -> features (n, M) float32."""
        return vectors_of(tokens, self.codewords) @ self.from_components + self.mean

    def encode_tokens(self, tokens: Any, *about: Any, **more: Any) -> bytes:
        """Tokens of one signal as a `.ltz` stream, which decodes to them and to what they stand for; arguments as
        `compress_tokens`: of pictures the size, of sound rate, channels, samples and level.

        Raises:
            InputError: as `from_tokens`.
        """
        packed, shape = self.compress_tokens(tokens, *about, **more)
        sound = self.modality == "audio"
        rate = int(about[0] if about else more.get("rate", 44100)) if sound else 0
        header = Header(
            self.name, self.fingerprint, str(self.modality), "numpy" if sound else "pil", shape,
            "float32" if sound else "uint8", "file" if sound else "RGB", rate, packed.params,
        )  # fmt: skip
        return container.write(header, packed.chunks)

    def compress_tokens(self, tokens: Any, *about: Any, **more: Any) -> tuple[Compressed, tuple[int, ...]]:
        """Tokens as parameters and chunks, and the shape of their signal."""
        raise NotImplementedError

    def code_tokens(self, coder: Any, latent: np.ndarray | None, levels: int, h: int, w: int) -> np.ndarray:
        """Code the first levels of a latent (K, h, w); returns it whole, zeros where there is no token."""
        if self.prior is None:
            raise InputError(f"{self.name} has no entropy model yet: fit one (latentzip.training.vq)")
        out = np.zeros((self.depth, h, w), np.int32)
        out[:levels] = self.prior.program(coder, None if latent is None else latent[:levels], levels, h, w)
        return out

    def coding_arrays(self) -> dict[str, np.ndarray]:
        return {} if self.prior is None else self.prior.to_arrays()

    @property
    def capabilities(self) -> frozenset[str]:
        return super().capabilities | {TOKENS}


# --- storage -----------------------------------------------------------------------------------------------------


def bytes_of(trunk: storage.AsBytes) -> storage.AsBytes:
    """Which tensors are stored as bytes: those of the trunk, which are shared, and the codewords, a scale a level."""
    return lambda key, value: key in _BYTES or trunk(key, value)


def round_weights(codec: TokenCodec, as_bytes: storage.AsBytes, dtype: torch.dtype) -> None:
    """Set the weights to what storage keeps of them: the trunk's in ``dtype``, its own in 16 bits."""
    storage.round_state(codec, as_bytes, dtype)
    for key in _BUFFERS:
        if key not in _BYTES:
            value = getattr(codec, key)
            value.copy_(value.half().float())


def to_tensors(codec: Any, as_bytes: storage.AsBytes, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; `round_weights` comes first, `storage.share` may follow."""
    if codec.prior is None:
        raise InputError(f"{codec.name} has no entropy model to store")
    tensors = storage.to_tensors(codec, as_bytes, dtype)
    for key in _BUFFERS:
        if key not in _BYTES:
            tensors[f"model.{key}"] = tensors[f"model.{key}"].half()
    return tensors, storage.metadata(codec, asdict(codec.config))


def read(
    data: bytes, kind: str, bounds: Mapping[str, Check], shared: tuple[str, ...],
    make: Callable[[dict[str, Any], str], C],
) -> C:  # fmt: skip
    """The codec of a weights file.

    Args:
        kind: the family in words. bounds: of its configuration. shared: beginnings of the names of the trunk's tensors.
        make: configuration and name -> a codec without weights.

    Raises:
        FormatError: not a weights file of this family.
    """
    weights = storage.read(data)
    config = storage.checked(kind, bounds, weights.config)
    # a shared release brings more than the trunk
    own = {*_BUFFERS, *_BYTES}
    state = {k: v for k, v in weights.state.items() if k in own or k.startswith(shared)}
    try:
        codec = storage.build(lambda: make(config, weights.name), state, f"a {kind} codec")
        coding = {k: v for k, v in weights.coding.items() if k in _CODING}
        codec.prior = Prior.from_arrays(coding, len(codec.codewords), codec.entries, codec.coarse)
    except InputError as error:
        raise FormatError(f"not a {kind} weights file: {error}") from error
    return codec
