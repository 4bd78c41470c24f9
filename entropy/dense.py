"""Arrays and tensors as others hand them in, made plain: without a class, a gradient or a storage of their own.

Layout is kept where it costs nothing. What has no numbers to read (sparse, nested, quantised and meta tensors, masked
values, Python objects) is refused here, in one place, instead of by whatever operation comes first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import InputError

_KINDS = {"b": "truth values", "i": "integers", "u": "integers", "f": "floats"}


def dense(x: Any, what: str = "") -> Any:
    """A plain array of an array, a plain tensor on its device of a tensor; anything else as it is.

    Raises:
        InputError: masked values, or a tensor that holds no plain numbers.
    """
    if type(x) is np.ndarray:
        return x
    if isinstance(x, np.ndarray):
        if np.ma.is_masked(x):
            raise InputError(f"{what or 'the array'} has masked values: fill them first, x.filled(value)")
        return np.asarray(x)
    return _tensor(x, what or "the tensor") if hasattr(x, "detach") else x


def _tensor(x: Any, what: str) -> Any:
    import torch

    if not isinstance(x, torch.Tensor):
        return x
    odd = "nested" if x.is_nested else "" if x.layout is torch.strided else str(x.layout).removeprefix("torch.")
    odd = odd or ("meta" if x.is_meta else "quantised" if x.is_quantized else "")
    if odd:
        remedies = {"meta": "it has no values", "nested": "hand its tensors in one by one"}
        remedy = remedies.get(odd, "make it dense first")
        raise InputError(f"{what} is {odd.replace('_', ' ')}: {remedy}")
    x = x.detach()
    if type(x) is not torch.Tensor:
        x = x.as_subclass(torch.Tensor)
    return x.resolve_conj().resolve_neg() if x.is_neg() or x.is_conj() else x


def array_of(x: Any, kinds: str = "iu", what: str = "the array") -> np.ndarray:
    """Arrays, tensors (from any device) and sequences as a plain array of this machine's byte order.

    Args:
        kinds: what they may hold, as in `numpy.dtype.kind`: of b, i, u and f.

    Raises:
        InputError: other values, or a sequence that is none of numbers.
    """
    a = x if type(x) is np.ndarray else to_numpy(x, what)
    if a.dtype.kind not in kinds:
        raise InputError(f"{what} must hold {_words(kinds)}, not {a.dtype}")
    return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))


def _words(kinds: str) -> str:
    return " or ".join(dict.fromkeys(_KINDS[kind] for kind in kinds))


def to_numpy(x: Any, what: str = "the array") -> np.ndarray:
    """Arrays, tensors (from any device) and sequences as an array, without a copy where possible; errors as `array_of`.

    bfloat16, which numpy does not have, becomes float32.
    """
    if type(x) is np.ndarray:
        return x
    try:
        if not hasattr(x, "detach"):
            return np.asarray(dense(x, what))
        x = dense(x, what).cpu()
        return (x.float() if str(x.dtype) == "torch.bfloat16" else x).numpy()
    except (TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{what} holds no plain numbers: {error}") from None


def tensor_of(x: Any, kinds: str = "f", what: str = "the tensor") -> Any:
    """The same as a tensor, of its dtype; of tensors on their device.

    Raises:
        InputError: as `array_of`.
    """
    import torch

    if isinstance(x, torch.Tensor):
        x = _tensor(x, what)
        kind = "b" if x.dtype == torch.bool else "f" if x.is_floating_point() else "c" if x.is_complex() else "i"
        if kind not in kinds or (kind == "f" and x.element_size() == 1):
            raise InputError(f"{what} must hold {_words(kinds)}, not {str(x.dtype).removeprefix('torch.')}")
        return x
    a = array_of(x, kinds, what)
    odd = not a.flags.writeable or any(s < 0 or s % a.itemsize for s in a.strides) or a.dtype == np.longdouble
    return torch.from_numpy(np.array(a, np.float64 if a.dtype == np.longdouble else a.dtype, order="C") if odd else a)
